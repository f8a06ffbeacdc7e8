"""`streamed_cross_entropy` where a rank holds all candidates: each softmax is complete within a panel.

Shape letters: G global rows, Q rows this rank owns, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from inbatch.losses.softmax.pairing import pair
from inbatch.losses.softmax.panels import Arithmetic, SoftmaxSpec, detached
from inbatch.losses.softmax.products import add_product, row_weight
from inbatch.losses.softmax.walk import (
    StreamStats,
    add_own_pairs,
    drop_radial_parts,
    gradient_buffers,
    gradient_products,
    losses_of,
    panels,
    prepare,
    scaled_gradients,
    share_of_peak,
    texts_of,
)


def gathered_cross_entropy(
    spec: SoftmaxSpec, columns: Sequence[Tensor], arithmetic: Arithmetic
) -> tuple[Tensor, StreamStats]:
    """The loss of the owned rows, a scalar that can be differentiated once, and detached statistics.

    Args:
        spec: the arguments without gradient.
        columns: each [G, D].
        arithmetic: what is done between the products.
    """
    spec, temperature = detached(spec)
    grad = torch.is_grad_enabled()
    loss, *stats = _CrossEntropy.apply(spec, arithmetic, grad, temperature, *columns)
    return loss, StreamStats(*stats)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        spec: SoftmaxSpec,
        arithmetic: Arithmetic,
        grad: bool,
        temperature: Tensor | None,
        *columns: Tensor,
    ) -> tuple[Tensor, ...]:
        learned, *needed = ctx.needs_input_grad[3:]
        wanted = [grad and (need or learned) for need in needed]
        # Autocast spares in-place and out= operations; this covers whatever else is called.
        with torch.autocast(columns[0].device.type, enabled=False):
            loss, stats, gradients, factors, of_temperature = _run(
                spec, arithmetic, columns, wanted
            )
        ctx.save_for_backward(*gradients)
        ctx.factors, ctx.of_temperature = factors, of_temperature
        ctx.dtypes = tuple(column.dtype for column in columns)
        ctx.mark_non_differentiable(*stats)
        return loss, *stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        of_temperature = None if ctx.of_temperature is None else ctx.of_temperature * grad_loss
        return None, None, None, of_temperature, *scaled_gradients(ctx, grad_loss)


def _run(
    spec: SoftmaxSpec, arithmetic: Arithmetic, columns: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor, StreamStats, list[Tensor | None], list[Tensor | float], Tensor | None]:
    """Walk over the panels: loss, statistics, each wanted column's gradient with what it lacks, and that
    of a learned temperature."""
    prepared = prepare(spec, columns)
    texts = texts_of(spec, prepared)
    pairing = pair(texts, texts, own=True)
    gradients = gradient_buffers(columns, wanted, prepared.dtype)
    first, num_rows = spec.rows.start, spec.rows.stop - spec.rows.start
    positive_Q, hardest_Q, peak_Q, negatives_Q = columns[0].new_empty(
        4, num_rows, dtype=prepared.dtype
    )
    filtered = torch.zeros((), dtype=torch.int64, device=columns[0].device)

    for own, buffers in panels(spec, texts, arithmetic, len(columns[0])):
        part = slice(first + own.start, first + own.stop)
        reduced = arithmetic.reduce(spec, pairing, buffers, part)
        positive_Q[own], hardest_Q[own] = reduced.positive, reduced.hardest
        peak_Q[own], negatives_Q[own] = reduced.peak, reduced.negatives
        filtered += reduced.removed
        if any(wanted):
            share_R = share_of_peak(reduced.positive, reduced.peak, reduced.negatives)
            for k, block in enumerate(spec.blocks):
                rows, candidates = texts.columns[block.rows], texts.columns[block.candidates]
                weights = arithmetic.weigh(
                    buffers, k, candidates, reduced.peak, row_weight(rows[part], share_R)
                )
                sides = (texts.columns, texts.columns, (gradients, gradients))
                for product in gradient_products(weights, block, *sides, part):
                    add_product(*product)

    losses_Q, own_weight_Q = losses_of(positive_Q, peak_Q, negatives_Q)
    of_temperature = None
    if any(wanted):
        add_own_pairs(spec, prepared, spec.rows, own_weight_Q, gradients)
        of_temperature = drop_radial_parts(spec, prepared, gradients)
        if of_temperature is not None:
            of_temperature *= prepared.backward_factor(spec, num_rows)
    scores = (positive_Q * spec.temperature, hardest_Q * spec.temperature)
    factors = prepared.backward_factors(spec, num_rows)
    stats = StreamStats(*scores, filtered)
    return losses_Q.mean(), stats, gradients, factors, of_temperature
