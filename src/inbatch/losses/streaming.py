"""The engine under every in-batch loss: softmax cross-entropy whose score matrix is never held.

A loss names *blocks*: queries against positives, queries against queries, and so on. Row i of the
loss is the cross-entropy of one softmax over all blocks side by side, with the query's own positive
as the target. The sweep walks over panels of some hundred rows: one matrix product a block fills
the panel with logits, the guide's mask and the softmax are applied in place, and two more products
turn it into gradients, which accumulate. A panel holds *all* candidates of its rows, so that each
softmax is complete at once: no online rescaling, and no second pass in backward, which would repeat
the products of embeddings and of guide (a third of all arithmetic). The price: gradients, of the
size of the embeddings, are computed in forward and wait. The loss is a mean; backward scales them.

Memory beyond inputs and outputs: one panel (`panel_bytes`), a tile of guide scores with its mask,
and the normalised columns while forward runs. Nothing grows with the square of the batch.
This is the reference, for any device and dtype. On CUDA, `triton_loss` computes the same; `ring`
computes it where no rank holds all columns.

Shape letters: G global rows, Q rows this rank owns, R rows of a panel, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from inbatch.losses.base import Ring
from inbatch.losses.panels import (
    Block,
    GuideFilter,
    GuideScratch,
    Pairing,
    Texts,
    add_gradients,
    exponentiate,
    fill_tile,
    harden_tile,
    mask_equal_texts,
    mask_tile,
)

# CPU: measured on one AVX-512 core for G = 1024 to 4096, D = 384. Larger panels gain 5 % at most,
# panels of 32 rows lose 40 %. CUDA: estimated, for products large enough to keep a GPU busy.
PANEL_BYTES = {"cpu": 16 * 2**20, "cuda": 256 * 2**20}
MAX_PANEL_ROWS = {"cpu": 256, "cuda": 4096}
# Whatever the memory: each panel reads all candidates again, and a GPU needs some 100 rows to be
# busy meanwhile.
MIN_PANEL_ROWS = {"cpu": 16, "cuda": 128}

Implementation = Literal["tiled", "triton"]
IMPLEMENTATIONS = ("tiled", "triton")


class StreamStats(NamedTuple):
    """Detached by-products of the sweep."""

    positive: Tensor  # [Q] score of each row's positive
    hardest: Tensor  # [Q] largest score of the query's kept negatives, -inf where none is kept
    filtered: Tensor  # int64 scalar, entries that the guide removed


def streamed_cross_entropy(
    columns: Sequence[Tensor],
    blocks: Sequence[Block],
    *,
    rows: slice,
    temperature: float,
    normalize: bool = True,
    hardness_strength: float = 0.0,
    guide: GuideFilter | None = None,
    text_ids: Sequence[Tensor] | None = None,
    panel_bytes: int | None = None,
    implementation: Implementation = "tiled",
    ring: Ring | None = None,
) -> tuple[Tensor, StreamStats]:
    """Mean over the owned rows of ``logsumexp(logits of all blocks) - logit of the own positive``.

    A logit is a score over `temperature`; a score is the cosine of two embeddings, or their dot
    product where `normalize` is False. Computed in float32 (float64 if a column is), whatever the
    dtype of the columns and whether or not autocast is on; gradients have the columns' dtype.

    Args:
        columns: each [G, D], the embeddings of the global batch.
        blocks: what goes into the softmax; exactly one has ``own="positive"``.
        rows: rows of the global batch to average over, ``0 <= start < stop <= G``.
        temperature: positive divisor of the scores.
        normalize: bring embeddings to unit length; the gradient passes through.
        hardness_strength: strength for the blocks' hardened entries.
        guide: mask of false negatives; it never removes a row's own positive.
        text_ids: int64 [G] of each column, to leave out known positives (`panels.mask_equal_texts`); only
            where implementation is "tiled".
        panel_bytes: memory of a panel of logits, of `MIN_PANEL_ROWS` at least; None takes the default
            of the device.
        implementation: "tiled" is this file, for any device and dtype; "triton" the kernels of
            `triton_loss`, for CUDA and float32. The default stays "tiled" on every device until the
            kernels have been measured faster on a card.
        ring: where each rank holds its own rows only: the way to those of all others. Then all tensors are of
            the own rows, `rows` is all of them, and implementation is "tiled".

    Returns:
        The loss, a scalar that can be differentiated once, and detached statistics.

    """
    if sum(block.own == "positive" for block in blocks) != 1:
        raise ValueError("exactly one block of a softmax holds the positive")
    sweep = Sweep(
        tuple(blocks), rows, temperature, normalize, hardness_strength, guide, text_ids, panel_bytes
    )
    if ring is not None:
        from inbatch.losses.ring import ring_cross_entropy  # built on this file

        if implementation != "tiled":
            raise ValueError(f"implementation is {implementation}: a ring needs the tiled form")
        return ring_cross_entropy(sweep, columns, ring)
    if implementation == "triton":
        from inbatch.losses.triton_loss import fused_cross_entropy  # imports triton

        return fused_cross_entropy(sweep, columns)
    loss, *stats = _CrossEntropy.apply(sweep, torch.is_grad_enabled(), *columns)
    return loss, StreamStats(*stats)


def similarity_metrics(stats: StreamStats) -> dict[str, Tensor]:
    """Means over the owned rows; rows without a kept negative do not count for the hardest one."""
    kept_Q = stats.hardest.isfinite()
    hardest = torch.where(kept_Q, stats.hardest, 0).sum() / kept_Q.sum()
    return {"positive_similarity": stats.positive.mean(), "hardest_negative_similarity": hardest}


@dataclass(frozen=True, slots=True)
class Sweep:
    """The arguments of `streamed_cross_entropy` that have no gradient."""

    blocks: tuple[Block, ...]
    rows: slice
    temperature: float
    normalize: bool
    hardness_strength: float
    guide: GuideFilter | None
    text_ids: Sequence[Tensor] | None
    panel_bytes: int | None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sweep: Sweep, grad: bool, *columns: Tensor) -> tuple[Tensor, ...]:
        wanted = [grad and need for need in ctx.needs_input_grad[2:]]
        # A bfloat16 product keeps 8 bits: logits at temperature 0.01 would be off by whole units.
        # Autocast spares in-place and out= operations; this covers whatever else is called.
        with torch.autocast(columns[0].device.type, enabled=False):
            loss, stats, gradients = _run(sweep, columns, wanted)
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
    sweep: Sweep, columns: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[Tensor, StreamStats, list[Tensor | None]]:
    """Walk over the panels: loss, statistics, and the loss's gradient for each wanted column."""
    dtype = torch.float64 if any(c.dtype == torch.float64 for c in columns) else torch.float32
    units, norms = zip(*(prepare(column, dtype, sweep.normalize) for column in columns))
    gradients = [torch.zeros_like(unit) if want else None for unit, want in zip(units, wanted)]
    first, num_rows = sweep.rows.start, sweep.rows.stop - sweep.rows.start
    texts = texts_of(sweep, units)
    pairing = Pairing(texts, texts)
    step = panel_rows(sweep, units[0], num_tiles=len(sweep.blocks))
    panel = units[0].new_empty(len(sweep.blocks), step, len(units[0]))
    scratch = guide_scratch(sweep.guide, step, len(units[0]))
    losses_Q, positive_Q, hardest_Q = units[0].new_empty(3, num_rows)
    filtered = torch.zeros((), dtype=torch.int64, device=panel.device)

    for begin in range(0, num_rows, step):
        own = slice(begin, min(begin + step, num_rows))
        part = slice(first + own.start, first + own.stop)
        tiles = list(panel[:, : own.stop - own.start])
        filled = fill_panel(sweep, pairing, tiles, part, scratch)
        positive_Q[own], hardest_Q[own] = filled.positive, filled.hardest
        filtered += filled.removed
        peak_R = torch.maximum(filled.peak, filled.positive)
        negatives_R = exponentiate(tiles, peak_R)
        margin_R = positive_Q[own] - peak_R
        # log(1 + negatives / positive): exact where the positive is nearly everything.
        losses_Q[own] = torch.logaddexp(negatives_R.log() - margin_R, torch.zeros_like(margin_R))
        if any(wanted):
            weight_R = 1 / ((negatives_R + margin_R.exp()) * (num_rows * sweep.temperature))
            for block, tile_RG in zip(sweep.blocks, tiles):
                if block.own == "positive":  # probability - 1 = -(sum of the negatives')
                    pairing.diagonal(tile_RG, part).copy_(-negatives_R)
                tile_RG.mul_(weight_R[:, None])
                add_gradients(tile_RG, block, pairing, (gradients, gradients), part)

    for unit_GD, norm_G, gradient_GD in zip(units, norms, gradients):
        if gradient_GD is not None:
            through_length(gradient_GD, unit_GD, norm_G)
    scores = (positive_Q * sweep.temperature, hardest_Q * sweep.temperature)
    return losses_Q.mean(), StreamStats(*scores, filtered), gradients


class Filled(NamedTuple):
    """Of a panel's rows, the logit of the positive, the largest of the query's negatives before hardening,
    and the largest of all negatives, each [R] (the positive [0] where it is not in the panel); and how
    many entries the guide removed."""

    positive: Tensor
    hardest: Tensor
    peak: Tensor
    removed: Tensor | int


def fill_panel(
    sweep: Sweep,
    pairing: Pairing,
    tiles: Sequence[Tensor],
    part: slice,
    scratch: GuideScratch | None,
) -> Filled:
    """Fill a panel with the logits of the negatives, and -inf elsewhere."""
    target = next(block for block in sweep.blocks if block.own == "positive")
    removed: Tensor | int = 0
    hardest, peaks = [], []
    for block, tile_RG in zip(sweep.blocks, tiles):
        fill_tile(tile_RG, block, pairing, part, temperature=sweep.temperature)
        own_R = pairing.diagonal(tile_RG, part)
        if block is target:
            positive_R = own_R.clone()
        if block.own != "plain":
            own_R.fill_(-torch.inf)
        if sweep.text_ids is not None:
            mask_equal_texts(tile_RG, block, pairing, part)
        if sweep.guide is not None and scratch is not None:
            removed = removed + mask_tile(
                tile_RG, block, pairing, part, threshold=sweep.guide.threshold, scratch=scratch
            )
        peak_R = tile_RG.amax(1)
        if block.rows == target.rows:
            hardest.append(peak_R)
        if block.hardened != "none":
            factor = 1 + sweep.hardness_strength * sweep.temperature
            harden_tile(tile_RG, block, own_R, factor=factor)
            peak_R = tile_RG.amax(1)
        peaks.append(peak_R)
    return Filled(positive_R, torch.stack(hardest).amax(0), torch.stack(peaks).amax(0), removed)


def texts_of(sweep: Sweep, units: Sequence[Tensor]) -> Texts:
    """The texts of a sweep, with columns as scores take them."""
    return Texts(units, None if sweep.guide is None else sweep.guide.columns, sweep.text_ids)


def prepare(column: Tensor, dtype: torch.dtype, normalize: bool) -> tuple[Tensor, Tensor | None]:
    """A column in the compute dtype and, if normalised, the lengths that it was divided by."""
    values_GD = column.detach().to(dtype)
    if not normalize:
        return values_GD.contiguous(), None
    norm_G = torch.linalg.vector_norm(values_GD, dim=1, keepdim=True).clamp_min_(1e-12)
    return (values_GD / norm_G).contiguous(), norm_G


def through_length(gradient_GD: Tensor, unit_GD: Tensor, norm_G: Tensor | None) -> None:
    """Carry a gradient of x / |x| on to x, in place: drop the radial part, divide by the length."""
    if norm_G is not None:
        radial_G = (gradient_GD * unit_GD).sum(1)
        gradient_GD.addcmul_(unit_GD, radial_G[:, None], value=-1).div_(norm_G)


def panel_rows(sweep: Sweep, unit_GD: Tensor, *, num_tiles: int) -> int:
    """Rows of a panel of so many tiles that fit its memory."""
    device = "cpu" if unit_GD.device.type == "cpu" else "cuda"
    row_bytes = num_tiles * len(unit_GD) * unit_GD.element_size()
    fitting = (sweep.panel_bytes or PANEL_BYTES[device]) // row_bytes
    fitting = min(max(fitting, MIN_PANEL_ROWS[device]), MAX_PANEL_ROWS[device])
    return min(fitting, sweep.rows.stop - sweep.rows.start)


def guide_scratch(
    guide: GuideFilter | None, num_rows: int, num_candidates: int
) -> GuideScratch | None:
    """Buffers for the guide's part of a panel."""
    if guide is None:
        return None
    scores_RG = guide.columns[0].new_empty(num_rows, num_candidates)
    return GuideScratch(scores_RG, torch.empty_like(scores_RG, dtype=torch.bool))
