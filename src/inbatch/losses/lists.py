"""In-batch losses of rows with lists: softmaxes over ragged documents. Shape letters as in `LossInput`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from inbatch.errors import ConfigError
from inbatch.losses.base import LossInput, VisibleDocuments
from inbatch.losses.softmax.forms import Form
from inbatch.losses.softmax.implementation import Implementation
from inbatch.losses.softmax.panels import Block, GuideFilter
from inbatch.losses.softmax.ragged import ragged_cross_entropy
from inbatch.losses.softmax.ragged_spec import Negatives, RaggedSpec
from inbatch.losses.softmax.walk import StreamStats


def as_lists(inputs: LossInput) -> LossInput:
    """Rows in columns as rows with lists of one positive and the same number of negatives."""
    if inputs.documents is not None:
        return inputs
    num_rows, per_row = len(inputs.columns[0]), len(inputs.columns) - 1

    def flat(columns: Sequence[Tensor]) -> tuple[Tensor, ...]:
        query, *others = columns
        return query, torch.stack(others, 1).flatten(0, 1)

    places = torch.arange(num_rows * per_row, device=inputs.columns[0].device)
    owned = inputs.rows.stop - inputs.rows.start
    documents = VisibleDocuments(
        owner=places // per_row,
        is_positive=places % per_row == 0,
        first=inputs.rows.start * per_row,
        counts=np.full(owned, per_row),
        positives=np.ones(owned, dtype=np.int64),
    )
    return replace(
        inputs,
        columns=flat(inputs.columns),
        guide=None if inputs.guide is None else flat(inputs.guide),
        text_ids=None if inputs.text_ids is None else flat(inputs.text_ids),
        documents=documents,
    )


def list_cross_entropy(
    inputs: LossInput,
    blocks: Sequence[Block],
    *,
    among_positives: frozenset[int] = frozenset(),
    form: Form,
    negatives: Negatives,
    temperature: float | Tensor,
    implementation: Implementation,
    normalize: bool = True,
    hardness_strength: float = 0.0,
    guide: GuideFilter | None = None,
    masked: bool = False,
) -> tuple[Tensor, StreamStats, Tensor]:
    """`streamed_cross_entropy` of rows with lists; the last result counts the negatives that a guide sees.

    Args:
        inputs: of the loss, with lists.
        blocks: what goes into the softmaxes, of the columns queries and documents.
        among_positives: numbers of blocks whose candidates are positives only.
        form: what several positives of a row make, see `softmax.forms`.
        negatives: "own" leaves the negatives of other rows out.
        temperature, normalize, hardness_strength: see `streamed_cross_entropy`.
        implementation: "triton" is refused.
        guide: mask of false negatives, with a threshold for each positive of the owned rows.
        masked: whether known positives are left out.

    Raises:
        ConfigError: kernels are asked for, or the rows travel in a ring.
    """
    if implementation == "triton":
        raise ConfigError(
            "loss.implementation",
            "does not know rows with lists",
            "set loss.implementation=auto",
            value="triton",
        )
    if inputs.ring is not None:
        raise ConfigError(
            "gather", "does not know rows with lists", "set gather=global", value="ring"
        )
    assert inputs.documents is not None
    spec = RaggedSpec(
        blocks=tuple(blocks),
        among_positives=among_positives,
        rows=inputs.rows,
        documents=inputs.documents,
        form=form,
        negatives=negatives,
        temperature=temperature,
        normalize=normalize,
        hardness_strength=hardness_strength,
        guide=guide,
        text_ids=inputs.text_ids if masked else None,
        panel_bytes=None,
        panel_halvings=inputs.panel_halvings,
        exact_in=inputs.exact_in,
        mixed=inputs.mixed,
    )
    return ragged_cross_entropy(spec, inputs.columns)
