"""What the gathered form and the ring share: columns as factors, panels of rows, and the way back.

Shape letters: G global rows, Q rows this rank owns, R rows of a panel, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from inbatch.losses.softmax.pairing import ScoredTexts
from inbatch.losses.softmax.panels import (
    Arithmetic,
    Block,
    Buffers,
    GuideFilter,
    Scoring,
    Softmax,
    SoftmaxSpec,
    Weights,
)
from inbatch.losses.softmax.products import (
    HALVES,
    Factor,
    along_values,
    drop_radial,
    make_factor,
    product_form,
    weight_unit,
)

# Bytes of the logits of a panel, and its rows whatever the bytes.
# CPU: measured on one AVX-512 core for G = 1024 to 4096, D = 384. Larger panels gain 5 % at most,
# panels of 32 rows lose 40 %.
# CUDA: computed. Each panel reads all candidates and adds to all of their gradients: 12 D / R bytes an entry,
# beside the 30 to 98 of its own passes. At D = 768 these are 72 for 128 rows, 9 for 1,024 and 5 for 2,048.
PANEL_BYTES = {"cpu": 16 * 2**20, "cuda": 2**30}
MAX_PANEL_ROWS = {"cpu": 512, "cuda": 2048}
MIN_PANEL_ROWS = {"cpu": 16, "cuda": 128}
# The bytes for a GPU at hand: half of its cache (40 MB on an A100, 50 on an H100, 72 on a 4090), where that
# holds so many rows, as up to 4,096 candidates in four blocks on an H100; else a part of its memory.
CACHED_ROWS = 384
MEMORY_PART = 1 / 64


class StreamStats(NamedTuple):
    """Detached by-products of the loss."""

    positive: Tensor  # [Q] score of each row's positive
    hardest: Tensor  # [Q] largest score of the query's kept negatives, -inf where none is kept
    filtered: Tensor  # int64 scalar, entries that the guide removed


class Columns(NamedTuple):
    """Columns as they are multiplied, and the way of their gradients back."""

    factors: list[Factor]  # each [G, D]
    slopes: list[Tensor | None]  # each [G, 1], see `make_factor`

    @property
    def dtype(self) -> torch.dtype:
        """Of logits and sums, and of gradients until they are finished."""
        return torch.promote_types(self.factors[0].values.dtype, torch.float32)

    def backward_factors(self, spec: Scoring, num_rows: int) -> list[Tensor | float]:
        """What gradients of summed, unscaled weights are multiplied by, [G, 1] or one for all each."""
        per_row = self.backward_factor(spec, num_rows)
        return [per_row if slope is None else slope * per_row for slope in self.slopes]

    def backward_factor(self, spec: Scoring, num_rows: int) -> Tensor | float:
        """The same with respect to the values of factors."""
        return 1 / (num_rows * spec.temperature * weight_unit(self.factors[0]))


def prepare(spec: Scoring, columns: Sequence[Tensor]) -> Columns:
    """Columns [G, D] in the type of their products, of unit length or with what makes them so."""
    mixed = spec.mixed and spec.normalize  # dot products may be too large to be split
    form = product_form(columns, exact_in=spec.exact_in, mixed=mixed)
    pairs = [make_factor(column, form, normalize=spec.normalize) for column in columns]
    return Columns([factor for factor, _ in pairs], [slope for _, slope in pairs])


def texts_of(spec: SoftmaxSpec, columns: Columns) -> ScoredTexts:
    """The texts of a spec as scores take them."""
    return ScoredTexts(columns.factors, guide_factors(spec.guide), spec.text_ids)


def guide_factors(guide: GuideFilter | None) -> list[Factor] | None:
    """The columns of a guide as they are multiplied; None without any, as where the model is its guide."""
    if guide is None or guide.columns is None:
        return None
    form = product_form(guide.columns, mixed=True)
    return [
        make_factor(column, form, normalize=True)[0]
        if form.in_16_bits
        else Factor(column.contiguous())
        for column in guide.columns
    ]


def panels(
    spec: SoftmaxSpec,
    texts: ScoredTexts,
    arithmetic: Arithmetic,
    num_candidates: int,
    *,
    rows: slice | None = None,
) -> Iterator[tuple[slice, Buffers]]:
    """Panels of the owned rows against so many candidates: the rows among the owned, and their buffers.

    `rows` are those among the owned that are wanted; None for all.
    """
    rows = rows or slice(0, spec.rows.stop - spec.rows.start)
    like = texts.columns[0].values
    dtype = torch.promote_types(like.dtype, torch.float32)
    row_bytes = num_candidates * len(spec.blocks) * dtype.itemsize
    step = min(
        rows.stop - rows.start, panel_rows(like.device, row_bytes, panel_bytes=spec.panel_bytes)
    )
    step = max(step >> spec.panel_halvings, 1)

    def empty(*shape: int, dtype: torch.dtype) -> Tensor:
        width = -(-num_candidates // arithmetic.row_multiple) * arithmetic.row_multiple
        return like.new_empty(*shape, width, dtype=dtype)[..., :num_candidates]

    guide = None
    if texts.guide is not None:
        guide_dtype = torch.promote_types(texts.guide[0].values.dtype, torch.float32)
        guide = empty(step, dtype=guide_dtype)
    weights = empty(step, dtype=like.dtype) if like.dtype in HALVES else None
    tiles = empty(len(spec.blocks), step, dtype=dtype).unbind(0)
    buffers = Buffers(list(tiles), guide, weights)
    for begin in range(rows.start, rows.stop, step):
        own = slice(begin, min(begin + step, rows.stop))
        yield own, buffers.first(own.stop - own.start)


def panel_rows(device: torch.device, row_bytes: int, *, panel_bytes: int | None) -> int:
    """Rows of a panel, of which each takes so many bytes; `panel_bytes` None takes what suits the device."""
    kind: Literal["cpu", "cuda"] = "cpu" if device.type == "cpu" else "cuda"
    if panel_bytes is None and device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        cached = gpu.L2_cache_size // 2
        is_cached = cached // row_bytes >= CACHED_ROWS
        panel_bytes = cached if is_cached else int(gpu.total_memory * MEMORY_PART)
    return rows_within(kind, row_bytes, panel_bytes=panel_bytes)


def rows_within(
    kind: Literal["cpu", "cuda"], row_bytes: float, *, panel_bytes: int | None = None
) -> int:
    """Rows of a panel by numbers alone; `panel_bytes` None is what is usual."""
    fitting = int((panel_bytes or PANEL_BYTES[kind]) / row_bytes)
    return min(max(fitting, MIN_PANEL_ROWS[kind]), MAX_PANEL_ROWS[kind])


def gradient_buffers(
    columns: Sequence[Tensor], wanted: Sequence[bool], dtype: torch.dtype
) -> list[Tensor | None]:
    """Zeros for the gradient of each wanted column."""
    return [
        torch.zeros_like(column, dtype=dtype, memory_format=torch.contiguous_format)
        if want
        else None
        for column, want in zip(columns, wanted)
    ]


def scaled_gradients(ctx: Any, grad_loss: Tensor) -> Iterator[Tensor | None]:
    """The saved gradients of columns, each by its factor and the loss's gradient, in the type of its column.

    Scaled in the compute dtype and cast afterwards, so that a loss scale can rescue float16.

    Args:
        ctx: with `saved_tensors`, `factors` and `dtypes` of the columns.
        grad_loss: scalar.
    """
    for gradient, factor, dtype in zip(ctx.saved_tensors, ctx.factors, ctx.dtypes):
        yield None if gradient is None else (gradient * (factor * grad_loss)).to(dtype)


def gradient_products(
    weights: Weights,
    block: Block,
    rows: Sequence[Factor],
    candidates: Sequence[Factor],
    gradients: tuple[Sequence[Tensor | None], Sequence[Tensor | None]],
    part: slice,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """The products that carry a block's weights on to its two columns, as `add_product` takes them.

    `gradients` are those of the rows' columns and of the candidates', of which some may not be wanted.
    """
    rows_gradient, candidates_gradient = gradients[0][block.rows], gradients[1][block.candidates]
    tile_RG, factor_R = weights
    if rows_gradient is not None:
        yield rows_gradient[part], tile_RG, candidates[block.candidates].values, factor_R
    if candidates_gradient is not None:
        values_RD = rows[block.rows].values[part]
        values_RD = values_RD if factor_R is None else values_RD * factor_R[:, None]
        yield candidates_gradient, tile_RG.T, values_RD, None


def losses_of(positive_Q: Tensor, peak_Q: Tensor, negatives_Q: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each row, and its positive's probability - 1 = -(sum of the negatives'), both [Q]."""
    gap_Q = negatives_Q.log() + (peak_Q - positive_Q)
    # log(1 + negatives / positive): exact where the positive is nearly everything.
    return torch.logaddexp(gap_Q, torch.zeros_like(gap_Q)), -gap_Q.sigmoid()


def share_of_peak(positive_R: Tensor, peak_R: Tensor, negatives_R: Tensor) -> Tensor:
    """Softmax of an entry whose logit is the peak, [R]."""
    return 1 / (negatives_R + (positive_R - peak_R).exp())


def add_own_pairs(
    spec: Softmax,
    columns: Columns,
    own: slice,
    own_weight_Q: Tensor,
    gradients: Sequence[Tensor | None],
) -> None:
    """Add what the target's own pairs give; tiles leave it out.

    In 16 bits it would err the most, being the largest weight of a row.
    """
    ends = (spec.target.rows, spec.target.candidates)
    weight_Q = own_weight_Q
    for factor in (columns.factors[end][own] for end in ends):
        weight_Q = weight_Q if factor.scale is None else weight_Q * factor.scale
    weight_Q1 = weight_Q[:, None] * weight_unit(columns.factors[0])
    for mine, other in (ends, ends[::-1]):
        gradient = gradients[mine]
        if gradient is not None:
            gradient[own].addcmul_(columns.factors[other][own].exact_values(), weight_Q1)


def drop_radial_parts(
    spec: Scoring, columns: Columns, gradients: Sequence[Tensor | None]
) -> Tensor | None:
    """Keep to what changes a score, where lengths do not.

    Returns:
        The gradient with respect to the temperature in the unit of `gradients`, a scalar; None where it is
        fixed. A score is bilinear: the sum of all scores times their gradients, which it is made of, is that
        of all rows times theirs, each score being counted by both of its sides.
    """
    along = []
    for factor, gradient in zip(columns.factors, gradients):
        if gradient is None:
            continue
        if spec.normalize:
            along.append(drop_radial(gradient, factor))
        elif isinstance(spec.temperature, Tensor):
            along.append(along_values(gradient, factor))
    if not isinstance(spec.temperature, Tensor):
        return None
    return -torch.cat(along).sum() / (2 * spec.temperature)
