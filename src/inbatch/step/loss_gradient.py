"""The loss of a batch and its gradient with respect to the columns that it sees, without any collective.

What the loss trains itself gets a gradient in the same pass.

So it can be computed again by a rank that has run out of memory; in a ring, whose hops the other ranks wait
for, from hop to hop. Shape letters: G rows that the loss sees, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.device.memory import retried, unless_out_of_memory
from inbatch.gather import RowsRing
from inbatch.gradcache import OutOfMemoryHandler
from inbatch.losses.base import Loss, LossInput
from inbatch.losses.geometry import MAX_ROWS, alignment_and_uniformity


class LossGradient(NamedTuple):
    """Detached results of a loss."""

    loss: Tensor  # scalar, weighted
    metrics: dict[str, Tensor]  # scalars
    columns: Sequence[Tensor]  # gradients of the columns, each [G, D]
    parameters: Mapping[str, Tensor]  # gradients of what the loss trains


def loss_gradient(loss: Loss, inputs: LossInput, *, weight: float) -> LossGradient:
    """Compute a loss in float32, whatever the autocast, and its gradient.

    Args:
        loss: of the rows that this rank owns.
        inputs: embeddings of any graph, which is left alone.
        weight: factor of the loss.
    """
    leaves = tuple(column.detach().requires_grad_() for column in inputs.columns)
    trained = {name: p.detach().requires_grad_() for name, p in inputs.parameters.items()}
    inputs = replace(inputs, columns=leaves, parameters=trained)
    with torch.autocast(leaves[0].device.type, enabled=False):
        output = loss(inputs)
    metrics = output.metrics | _geometry(inputs)
    value = output.loss * weight
    gradients = torch.autograd.grad(
        value, [*leaves, *trained.values()], allow_unused=True, materialize_grads=True
    )
    of_columns, of_trained = gradients[: len(leaves)], gradients[len(leaves) :]
    return LossGradient(value.detach(), metrics, of_columns, dict(zip(trained, of_trained)))


def gradient_in_memory(
    loss: Loss,
    inputs: LossInput,
    *,
    weight: float,
    ring: RowsRing | None,
    memory: OutOfMemoryHandler,
    keep_fewer: Callable[[], bool],
    end: Callable[[], None] | None,
) -> LossGradient:
    """`loss_gradient`, with fewer graphs beside it and then in smaller panels where memory runs out.

    Args:
        loss, inputs, weight: see there.
        ring: that of `inputs`.
        memory: knows the size of panels, and lowers it.
        keep_fewer: lets go of graphs, or returns False where none is held.
        end: called where nothing is left to lower, before zeros are returned for the sake of the other ranks;
            None lets the error pass, as do the hops of a ring.
    """
    remedies = [keep_fewer]
    if loss.scope == "candidates":
        remedies.append(memory.halve_panels)

    def lower() -> int | None:
        return memory.panel_halvings if any(remedy() for remedy in remedies) else None

    def compute() -> LossGradient:
        sized = replace(inputs, panel_halvings=memory.panel_halvings)
        return loss_gradient(loss, sized, weight=weight)

    if ring is not None:
        inputs = replace(inputs, ring=replace(ring, lower=lower))
        return compute()
    if end is None:
        return retried(compute, *remedies)
    found = unless_out_of_memory(partial(retried, compute, *remedies))
    if isinstance(found, RuntimeError):
        end()
        columns = [torch.zeros_like(column) for column in inputs.columns]
        trained = {name: torch.zeros_like(p) for name, p in inputs.parameters.items()}
        return LossGradient(columns[0].new_zeros(()), {}, columns, trained)
    return found


def _geometry(inputs: LossInput) -> dict[str, Tensor]:
    """Alignment and uniformity where all pairs are positives; of rows with lists by their first positive."""
    if inputs.labels is not None or len(inputs.columns) < 2:
        return {}
    queries, documents = inputs.columns[:2]
    if inputs.documents is not None:
        rows = torch.arange(min(len(queries), MAX_ROWS), device=queries.device)
        documents = documents[torch.searchsorted(inputs.documents.owner, rows)]
    return alignment_and_uniformity(queries[:MAX_ROWS], documents[:MAX_ROWS])
