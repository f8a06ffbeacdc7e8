"""The reference form of the softmax, for any device and dtype: panels of rows that hold all candidates.

Shape letters: G global rows, Q rows this rank owns, R rows of a panel, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from inbatch.losses.softmax.panels import Pairing, add_gradients, exponentiate
from inbatch.losses.softmax.walk import (
    SoftmaxSpec,
    StreamStats,
    fill_panel,
    guide_scratch,
    panel_rows,
    texts_of,
    through_length,
    unit_columns,
)


def tiled_cross_entropy(spec: SoftmaxSpec, columns: Sequence[Tensor]) -> tuple[Tensor, StreamStats]:
    """The loss of the owned rows, a scalar that can be differentiated once, and detached statistics.

    Args:
        spec: the arguments without gradient.
        columns: each [G, D].
    """
    loss, *stats = _CrossEntropy.apply(spec, torch.is_grad_enabled(), *columns)
    return loss, StreamStats(*stats)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spec: SoftmaxSpec, grad: bool, *columns: Tensor) -> tuple[Tensor, ...]:
        wanted = [grad and need for need in ctx.needs_input_grad[2:]]
        # A bfloat16 product keeps 8 bits: logits at temperature 0.01 would be off by whole units.
        # Autocast spares in-place and out= operations; this covers whatever else is called.
        with torch.autocast(columns[0].device.type, enabled=False):
            loss, stats, gradients = _run(spec, columns, wanted)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = tuple(column.dtype for column in columns)
        ctx.mark_non_differentiable(*stats)
        return loss, *stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        # Scaled in the compute dtype and cast afterwards, so that a loss scale can rescue float16.
        gradients = (
            None if gradient is None else (gradient * grad_loss).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes)
        )
        return None, None, *gradients


def _run(
    spec: SoftmaxSpec, columns: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor, StreamStats, list[Tensor | None]]:
    """Walk over the panels: loss, statistics, and the loss's gradient for each wanted column."""
    dtype = torch.float64 if any(c.dtype == torch.float64 for c in columns) else torch.float32
    units, norms = zip(*(unit_columns(column, dtype, spec.normalize) for column in columns))
    gradients = [torch.zeros_like(unit) if want else None for unit, want in zip(units, wanted)]
    first, num_rows = spec.rows.start, spec.rows.stop - spec.rows.start
    texts = texts_of(spec, units)
    pairing = Pairing(texts, texts)
    step = panel_rows(spec, units[0], num_tiles=len(spec.blocks))
    panel = units[0].new_empty(len(spec.blocks), step, len(units[0]))
    scratch = guide_scratch(spec.guide, step, len(units[0]))
    losses_Q, positive_Q, hardest_Q = units[0].new_empty(3, num_rows)
    filtered = torch.zeros((), dtype=torch.int64, device=panel.device)

    for begin in range(0, num_rows, step):
        own = slice(begin, min(begin + step, num_rows))
        part = slice(first + own.start, first + own.stop)
        tiles = list(panel[:, : own.stop - own.start])
        filled = fill_panel(spec, pairing, tiles, part, scratch)
        positive_Q[own], hardest_Q[own] = filled.positive, filled.hardest
        filtered += filled.removed
        peak_R = torch.maximum(filled.peak, filled.positive)
        negatives_R = exponentiate(tiles, peak_R)
        margin_R = positive_Q[own] - peak_R
        # log(1 + negatives / positive): exact where the positive is nearly everything.
        losses_Q[own] = torch.logaddexp(negatives_R.log() - margin_R, torch.zeros_like(margin_R))
        if any(wanted):
            weight_R = 1 / ((negatives_R + margin_R.exp()) * (num_rows * spec.temperature))
            for block, tile_RG in zip(spec.blocks, tiles):
                if block.own == "positive":  # probability - 1 = -(sum of the negatives')
                    pairing.diagonal(tile_RG, part).copy_(-negatives_R)
                tile_RG.mul_(weight_R[:, None])
                add_gradients(tile_RG, block, pairing, (gradients, gradients), part)

    for unit_GD, norm_G, gradient_GD in zip(units, norms, gradients):
        if gradient_GD is not None:
            through_length(gradient_GD, unit_GD, norm_G)
    scores = (positive_Q * spec.temperature, hardest_Q * spec.temperature)
    return losses_Q.mean(), StreamStats(*scores, filtered), gradients
