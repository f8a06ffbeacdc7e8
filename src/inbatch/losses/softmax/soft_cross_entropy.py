"""Softmax cross-entropy with a teacher's distribution as the target, over candidates of the global batch.

The counterpart of `cross_entropy.py` with two tiles a block, see `soft_targets`. Neither matrix of scores is
ever held, and what is returned is as exact as there. Shape letters: Q rows this rank owns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inbatch.device.copies import to_device
from inbatch.errors import ConfigError
from inbatch.losses.base import LossInput
from inbatch.losses.softmax.panels import Block
from inbatch.losses.softmax.ragged_spec import first_documents
from inbatch.losses.softmax.soft_gathered import SoftStats, gathered_soft_cross_entropy
from inbatch.losses.softmax.soft_ring import ring_soft_cross_entropy
from inbatch.losses.softmax.soft_targets import SoftSpec


def soft_cross_entropy(
    inputs: LossInput,
    blocks: Sequence[Block],
    *,
    temperature: float,
    teacher_temperature: float,
    share: float = 1.0,
    normalize: bool = True,
    panel_bytes: int | None = None,
) -> tuple[Tensor, SoftStats]:
    """Mean over the owned rows of ``(1 - share) * -log q_own + share * KL(p, q)``, see `soft_targets`.

    q has the student's scores over `temperature`, p the cosines of the guide's embeddings over
    `teacher_temperature`. A row's own candidate is its positive, of several the first one.

    Args:
        inputs: of a loss, with guide.
        blocks: what goes into both softmaxes; exactly one has ``own="positive"``. Of rows with lists, queries
            against documents or queries.
        temperature, teacher_temperature: positive divisors of scores.
        share: of the divergence, above 0 and at most 1.
        normalize: the student's scores are cosines, not dot products.
        panel_bytes: memory of a panel; None takes the default of the device.

    Returns:
        The loss, a scalar that can be differentiated once, and detached statistics.

    Raises:
        ConfigError: rows with lists are to travel in a ring.
    """
    assert inputs.guide is not None
    spec = SoftSpec(
        blocks=tuple(blocks),
        rows=inputs.rows,
        temperature=temperature,
        normalize=normalize,
        hardness_strength=0.0,
        guide=None,
        text_ids=None,
        panel_bytes=panel_bytes,
        panel_halvings=inputs.panel_halvings,
        exact_in=inputs.exact_in,
        mixed=inputs.mixed,
        teacher_temperature=teacher_temperature,
        share=share,
    )
    teacher = [column.detach() for column in inputs.guide]
    if inputs.ring is None:
        own_Q = _own_candidates(inputs)
        return gathered_soft_cross_entropy(spec, inputs.columns, teacher, own_Q)
    if inputs.documents is not None:
        raise ConfigError(
            "gather", "does not know rows with lists", "set gather=global", value="ring"
        )
    return ring_soft_cross_entropy(spec, inputs.columns, teacher, inputs.ring)


def _own_candidates(inputs: LossInput) -> Tensor:
    """Number of each owned row's positive among the candidates of its block, int64 [Q]."""
    device = inputs.columns[0].device
    if inputs.documents is None:
        return torch.arange(inputs.rows.start, inputs.rows.stop, device=device)
    return to_device(torch.from_numpy(first_documents(inputs.documents)), device)
