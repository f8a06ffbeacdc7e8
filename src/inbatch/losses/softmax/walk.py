"""The parts that all forms of the softmax share: arguments, and the walk over panels.

Shape letters: G global rows, Q rows this rank owns, R rows of a panel, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.losses.softmax.panels import (
    Block,
    GuideFilter,
    GuideScratch,
    Pairing,
    ScoredTexts,
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


class StreamStats(NamedTuple):
    """Detached by-products of the spec."""

    positive: Tensor  # [Q] score of each row's positive
    hardest: Tensor  # [Q] largest score of the query's kept negatives, -inf where none is kept
    filtered: Tensor  # int64 scalar, entries that the guide removed


@dataclass(frozen=True, slots=True)
class SoftmaxSpec:
    """The arguments of `streamed_cross_entropy` that have no gradient."""

    blocks: tuple[Block, ...]
    rows: slice
    temperature: float
    normalize: bool
    hardness_strength: float
    guide: GuideFilter | None
    text_ids: Sequence[Tensor] | None
    panel_bytes: int | None
    panel_halvings: int = 0


class Filled(NamedTuple):
    """Of a panel's rows, the logit of the positive, the largest of the query's negatives before hardening,
    and the largest of all negatives, each [R] (the positive [0] where it is not in the panel); and how
    many entries the guide removed."""

    positive: Tensor
    hardest: Tensor
    peak: Tensor
    removed: Tensor | int


def fill_panel(
    spec: SoftmaxSpec,
    pairing: Pairing,
    tiles: Sequence[Tensor],
    part: slice,
    scratch: GuideScratch | None,
) -> Filled:
    """Fill a panel with the logits of the negatives, and -inf elsewhere."""
    target = next(block for block in spec.blocks if block.own == "positive")
    removed: Tensor | int = 0
    hardest, peaks = [], []
    for block, tile_RG in zip(spec.blocks, tiles):
        fill_tile(tile_RG, block, pairing, part, temperature=spec.temperature)
        own_R = pairing.diagonal(tile_RG, part)
        if block is target:
            positive_R = own_R.clone()
        if block.own != "plain":
            own_R.fill_(-torch.inf)
        if spec.text_ids is not None:
            mask_equal_texts(tile_RG, block, pairing, part)
        if spec.guide is not None and scratch is not None:
            removed = removed + mask_tile(
                tile_RG, block, pairing, part, threshold=spec.guide.threshold, scratch=scratch
            )
        peak_R = tile_RG.amax(1)
        if block.rows == target.rows:
            hardest.append(peak_R)
        if block.hardened != "none":
            factor = 1 + spec.hardness_strength * spec.temperature
            harden_tile(tile_RG, block, own_R, factor=factor)
            peak_R = tile_RG.amax(1)
        peaks.append(peak_R)
    return Filled(positive_R, torch.stack(hardest).amax(0), torch.stack(peaks).amax(0), removed)


def texts_of(spec: SoftmaxSpec, units: Sequence[Tensor]) -> ScoredTexts:
    """The texts of a spec, with columns as scores take them."""
    return ScoredTexts(units, None if spec.guide is None else spec.guide.columns, spec.text_ids)


def unit_columns(
    column: Tensor, dtype: torch.dtype, normalize: bool
) -> tuple[Tensor, Tensor | None]:
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


def panel_rows(spec: SoftmaxSpec, unit_GD: Tensor, *, num_tiles: int) -> int:
    """Rows of a panel of so many tiles that fit its memory."""
    device = "cpu" if unit_GD.device.type == "cpu" else "cuda"
    row_bytes = num_tiles * len(unit_GD) * unit_GD.element_size()
    fitting = (spec.panel_bytes or PANEL_BYTES[device]) // row_bytes
    fitting = min(max(fitting, MIN_PANEL_ROWS[device]), MAX_PANEL_ROWS[device])
    rows = min(fitting, spec.rows.stop - spec.rows.start)
    return max(rows >> spec.panel_halvings, 1)


def guide_scratch(
    guide: GuideFilter | None, num_rows: int, num_candidates: int
) -> GuideScratch | None:
    """Buffers for the guide's part of a panel."""
    if guide is None:
        return None
    scores_RG = guide.columns[0].new_empty(num_rows, num_candidates)
    return GuideScratch(scores_RG, torch.empty_like(scores_RG, dtype=torch.bool))
