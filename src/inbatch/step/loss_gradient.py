"""The loss of a batch and its gradient with respect to the columns that it sees, without any collective.

So it can be computed again by a rank that has run out of memory. Shape letters: G rows that the loss sees,
D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.losses.base import Loss, LossInput
from inbatch.losses.geometry import MAX_ROWS, alignment_and_uniformity


class LossGradient(NamedTuple):
    """Detached results of a loss."""

    loss: Tensor  # scalar, weighted
    metrics: dict[str, Tensor]  # scalars
    columns: Sequence[Tensor]  # gradients of the columns, each [G, D]


def loss_gradient(loss: Loss, inputs: LossInput, *, weight: float) -> LossGradient:
    """Compute a loss in float32, whatever the autocast, and its gradient.

    Args:
        loss: of the rows that this rank owns.
        inputs: embeddings of any graph, which is left alone.
        weight: factor of the loss.
    """
    leaves = tuple(column.detach().requires_grad_() for column in inputs.columns)
    inputs = replace(inputs, columns=leaves)
    with torch.autocast(leaves[0].device.type, enabled=False):
        output = loss(inputs)
    metrics = output.metrics | _geometry(inputs)
    value = output.loss * weight
    gradients = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return LossGradient(value.detach(), metrics, gradients)


def _geometry(inputs: LossInput) -> dict[str, Tensor]:
    """Alignment and uniformity, where all pairs are positives; of rows with lists by their first positive."""
    if inputs.labels is not None:
        return {}
    queries, documents = inputs.columns[:2]
    if inputs.documents is not None:
        rows = torch.arange(min(len(queries), MAX_ROWS), device=queries.device)
        documents = documents[torch.searchsorted(inputs.documents.owner, rows)]
    return alignment_and_uniformity(queries[:MAX_ROWS], documents[:MAX_ROWS])
