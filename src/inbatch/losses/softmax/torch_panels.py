"""Arithmetic on a panel by torch's operations, in place, on any device and in any type.

On a CPU some operations take many times as long as others that do the same:

- Logits are to base 2 in here, since exp2 is four times as fast as exp, and more where its result is near 0;
  both err by 7e-8. `torch.softmax`, which is in between, errs by 4e-6.
- Entries are removed by adding `REMOVED` times a mask of 0 and 1, in a tenth of the time of `masked_fill_`.

Shape letters: K blocks, G candidates, R rows of a panel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import product

import torch
from torch import Tensor

from inbatch.losses.softmax.pairing import Pairing
from inbatch.losses.softmax.panels import (
    LOWEST,
    Block,
    Buffers,
    GuideFilter,
    Reduced,
    Softmax,
    SoftmaxSpec,
    Weights,
    guide_scores,
    guide_threshold,
    repeats_positive,
    spares_own,
)
from inbatch.losses.softmax.products import Factor, multiply

LN_2 = math.log(2)
# Finite, since 0 times an infinity is not 0.
REMOVED = 2 * LOWEST
# Rows whose texts are compared at a time, so that masks stay small beside a panel.
COMPARED_ROWS = 128


class TorchArithmetic:
    """The reference."""

    row_multiple = 1

    def reduce(self, spec: SoftmaxSpec, pairing: Pairing, buffers: Buffers, part: slice) -> Reduced:
        """Leave ``exp(logit - peak)`` in the tiles, which hold logits to base 2 until then."""
        positive_R = self._fill(spec, pairing, buffers, part)
        tiles = buffers.tiles
        removed = torch.zeros((), dtype=torch.int64, device=positive_R.device)
        if buffers.guide is not None:
            removed += _remove_by_guide(spec, pairing, tiles, part, buffers.guide)
        if spec.own_guide is not None:
            removed += _remove_by_own_scores(spec, spec.own_guide, pairing, tiles, part)
        if pairing.may_be_alike:
            for begin in range(0, len(tiles[0]), COMPARED_ROWS):
                some = [tile[begin : begin + COMPARED_ROWS] for tile in tiles]
                first = part.start + begin
                _remove_known(spec, pairing, some, slice(first, first + len(some[0])))
        peaks = [tile_RG.amax(1) for tile_RG in tiles]
        hardest_R = reduce(torch.maximum, spec.of_query(peaks))
        for k, (block, tile_RG) in enumerate(zip(spec.blocks, tiles)):
            if block.hardened != "none":
                own_R = pairing.diagonal(tile_RG, part)
                _harden(tile_RG, block, own_R, factor=spec.harden_factor)
                peaks[k] = tile_RG.amax(1)
        peak_R = reduce(torch.maximum, peaks).clamp_min(LOWEST)
        sums = [tile_RG.sub_(peak_R[:, None]).exp2_().sum(1) for tile_RG in tiles]
        negatives_R = reduce(torch.add, sums)
        hardest_R = hardest_R.masked_fill(hardest_R < LOWEST, -torch.inf)
        return Reduced(positive_R * LN_2, hardest_R * LN_2, peak_R * LN_2, negatives_R, removed)

    def weigh(
        self, buffers: Buffers, block: int, candidates: Factor, peak_R: Tensor, factor_R: Tensor
    ) -> Weights:
        """What `reduce` has left, or in the buffer of 16 bits."""
        tile_RG = buffers.tiles[block]
        if buffers.weights is None:
            return Weights(tile_RG, factor_R)
        if candidates.scale is not None:
            tile_RG.mul_(candidates.scale)
        return Weights(torch.mul(tile_RG, factor_R[:, None], out=buffers.weights))

    @staticmethod
    def _fill(spec: SoftmaxSpec, pairing: Pairing, buffers: Buffers, part: slice) -> Tensor:
        """Fill the tiles, -inf for own entries that are no negatives; returns the positives' logits, [R]."""
        alpha = 1 / (spec.temperature * LN_2)
        for k, block in enumerate(spec.blocks):
            rows = pairing.rows.columns[block.rows][part]
            candidates = pairing.candidates.columns[block.candidates]
            tile_RG = multiply(rows, candidates, buffers.tiles[k], alpha=alpha)
            buffers.tiles[k] = tile_RG
            own_R = pairing.diagonal(tile_RG, part)
            if block.own == "positive":
                positive_R = own_R.clone()
            if block.own != "plain":
                own_R.fill_(-torch.inf)
        return positive_R


def _remove_by_guide(
    spec: SoftmaxSpec,
    pairing: Pairing,
    tiles: Sequence[Tensor],
    part: slice,
    memory_RG: Tensor,
) -> Tensor:
    """Remove what the guide scores above the threshold; returns how many, an int64 scalar."""
    assert spec.guide is not None
    removed_KR = []
    for block, tile_RG in zip(spec.blocks, tiles):
        mask_RG, rows, candidates = guide_scores(memory_RG, block, pairing, part)
        if candidates.scale is not None:
            mask_RG.mul_(candidates.scale)
        mask_RG.gt_(guide_threshold(rows, spec.guide.threshold[part])[:, None])
        if spares_own(block, spec.blocks):
            pairing.diagonal(mask_RG, part).fill_(0)
        removed_KR.append(mask_RG.sum(1))  # exact in float32 up to 2^24 candidates
        tile_RG.add_(mask_RG, alpha=REMOVED)
    return torch.stack(removed_KR).to(torch.int64).sum()


def _remove_by_own_scores(
    spec: SoftmaxSpec,
    guide: GuideFilter,
    pairing: Pairing,
    tiles: Sequence[Tensor],
    part: slice,
) -> Tensor:
    """Remove the logits above the threshold; returns how many, an int64 scalar."""
    limit_R = own_limit(spec, guide.threshold[part])
    removed = []
    for block, tile_RG in zip(spec.blocks, tiles):
        own_R = pairing.diagonal(tile_RG, part)
        kept_R = own_R.clone()
        if repeats_positive(block, spec.blocks):
            own_R.fill_(-torch.inf)
        removed.append(remove_above(tile_RG, limit_R))
        if repeats_positive(block, spec.blocks):
            own_R.copy_(kept_R)
    return torch.stack(removed).sum()


def own_limit(spec: Softmax, threshold_R: Tensor) -> Tensor:
    """Thresholds of scores as those of logits to base 2, [R]."""
    return threshold_R / (spec.temperature * LN_2)


def remove_above(tile_RG: Tensor, limit_R: Tensor) -> Tensor:
    """Remove what is above the limit of its row, some rows at a time; returns how many, an int64 scalar."""
    mask_RG = torch.empty_like(tile_RG[:COMPARED_ROWS])
    removed = []
    for some_RG, some_R in zip(tile_RG.split(COMPARED_ROWS), limit_R.split(COMPARED_ROWS)):
        above_RG = torch.gt(some_RG, some_R[:, None], out=mask_RG[: len(some_RG)])
        removed.append(above_RG.sum(1))  # exact in float32 up to 2^24 candidates
        some_RG.add_(above_RG, alpha=REMOVED)
    return torch.cat(removed).to(torch.int64).sum()


def _remove_known(
    spec: SoftmaxSpec, pairing: Pairing, tiles: Sequence[Tensor], part: slice
) -> None:
    """Remove the candidates of other rows that are known to be positives of a row's query.

    These are texts equal to the row's query or positive, and query and positive of each row that shares a
    text with them: where a query has two positives, both rows' positives belong to both.
    """
    own_R1 = [ids_G[part, None] for ids_G in pairing.rows.ids_of(0)]
    pairs_Rn: Tensor | None = None  # of query and positive alike
    for block, tile_RG in zip(spec.blocks, tiles):
        places_n = None if pairing.alike is None else pairing.alike[block.candidates]
        others = pairing.candidates.ids_of(block.candidates)
        if places_n is not None:
            others = [ids_G[places_n] for ids_G in others]
        if block.candidates >= 2:
            mask_Rn = _any_equal(own_R1, others)
        elif pairs_Rn is None:
            mask_Rn = pairs_Rn = _any_equal(own_R1, others)
            if places_n is None:
                pairing.diagonal(pairs_Rn, part).fill_(0)  # every row shares its texts with itself
            elif pairing.own:
                pairs_Rn.mul_(places_n != torch.arange(part.start, part.stop)[:, None])
        else:
            mask_Rn = pairs_Rn
        remove_at(tile_RG, places_n, mask_Rn)


def _any_equal(own_R1: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """1 where any number of a row equals any of a candidate, else 0: [R, n]."""
    first, *more = product(own_R1, others)
    differences_Rn = torch.sub(*first)
    difference_Rn = torch.empty_like(differences_Rn)
    for one_R1, other_n in more:
        differences_Rn.mul_(torch.sub(one_R1, other_n, out=difference_Rn))
    return differences_Rn.eq_(0)


def remove_at(tile_RG: Tensor, places_n: Tensor | None, mask_Rn: Tensor) -> None:
    """Remove what a mask of some candidates says; `places_n` None is all of them in their order."""
    if places_n is None:
        tile_RG.add_(mask_Rn, alpha=REMOVED)
    elif len(places_n):
        some_Rn = tile_RG.index_select(1, places_n).add_(mask_Rn, alpha=REMOVED)
        tile_RG.index_copy_(1, places_n, some_Rn)


def _harden(tile_RG: Tensor, block: Block, own_R: Tensor, *, factor: float | Tensor) -> None:
    """Multiply the logits of a block's hardened entries; `own_R` is the view of the own ones."""
    if block.hardened == "own":
        own_R.mul_(factor)
    elif block.hardened == "all":
        tile_RG.mul_(factor)
    elif block.hardened == "others":
        kept_R = own_R.clone()
        tile_RG.mul_(factor)
        own_R.copy_(kept_R)
