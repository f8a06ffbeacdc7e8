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
from itertools import product

import torch
from torch import Tensor

from inbatch.losses.softmax.panels import (
    LOWEST,
    Block,
    Buffers,
    GuideFilter,
    Pairing,
    Reduced,
    Softmax,
    SoftmaxSpec,
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
        """Leave ``exp(logit - peak)`` in the panel, which holds logits to base 2 until then."""
        panel_KRG = buffers.logits
        removed = torch.zeros((), dtype=torch.int64, device=panel_KRG.device)
        positive_R = self._fill(spec, pairing, panel_KRG, part)
        if buffers.guide is not None:
            removed += _remove_by_guide(spec, pairing, panel_KRG, part, buffers.guide)
        if spec.own_guide is not None:
            removed += _remove_by_own_scores(spec, spec.own_guide, pairing, panel_KRG, part)
        if spec.text_ids is not None:
            for begin in range(0, panel_KRG.shape[1], COMPARED_ROWS):
                some = panel_KRG[:, begin : begin + COMPARED_ROWS]
                first = part.start + begin
                _remove_known(spec, pairing, some, slice(first, first + some.shape[1]))
        peak_KR = panel_KRG.amax(2)
        hardest_R = torch.stack(spec.of_query(peak_KR)).amax(0)
        for k, block in enumerate(spec.blocks):
            if block.hardened != "none":
                own_R = pairing.diagonal(panel_KRG[k], part)
                _harden(panel_KRG[k], block, own_R, factor=spec.harden_factor)
                peak_KR[k] = panel_KRG[k].amax(1)
        peak_R = peak_KR.amax(0).clamp_min_(LOWEST)
        negatives_R = panel_KRG.sub_(peak_R[:, None]).exp2_().sum((0, 2))
        hardest_R.masked_fill_(hardest_R < LOWEST, -torch.inf)
        for logit_R in (positive_R, hardest_R, peak_R):
            logit_R.mul_(LN_2)
        return Reduced(positive_R, hardest_R, peak_R, negatives_R, removed)

    def weigh(
        self, buffers: Buffers, block: int, candidates: Factor, peak_R: Tensor, factor_R: Tensor
    ) -> Tensor:
        """In place, or in the buffer of 16 bits."""
        tile_RG = buffers.logits[block]
        if buffers.weights is None:
            return tile_RG.mul_(factor_R[:, None])
        if candidates.scale is not None:
            tile_RG.mul_(candidates.scale)
        return torch.mul(tile_RG, factor_R[:, None], out=buffers.weights)

    @staticmethod
    def _fill(spec: SoftmaxSpec, pairing: Pairing, panel_KRG: Tensor, part: slice) -> Tensor:
        """Write the logits, and -inf for own entries that are no negatives; returns the positive's, [R]."""
        for block, tile_RG in zip(spec.blocks, panel_KRG):
            rows = pairing.rows.columns[block.rows][part]
            candidates = pairing.candidates.columns[block.candidates]
            multiply(rows, candidates, tile_RG, alpha=1 / (spec.temperature * LN_2))
            own_R = pairing.diagonal(tile_RG, part)
            if block.own == "positive":
                positive_R = own_R.clone()
            if block.own != "plain":
                own_R.fill_(-torch.inf)
        return positive_R


def _remove_by_guide(
    spec: SoftmaxSpec, pairing: Pairing, panel_KRG: Tensor, part: slice, mask_RG: Tensor
) -> Tensor:
    """Remove what the guide scores above the threshold; returns how many, an int64 scalar."""
    assert spec.guide is not None
    removed_KR = []
    for block, tile_RG in zip(spec.blocks, panel_KRG):
        rows, candidates = guide_scores(mask_RG, block, pairing, part)
        if candidates.scale is not None:
            mask_RG.mul_(candidates.scale)
        mask_RG.gt_(guide_threshold(rows, spec.guide.threshold[part])[:, None])
        if spares_own(block, spec.blocks):
            pairing.diagonal(mask_RG, part).fill_(0)
        removed_KR.append(mask_RG.sum(1))  # exact in float32 up to 2^24 candidates
        tile_RG.add_(mask_RG, alpha=REMOVED)
    return torch.stack(removed_KR).to(torch.int64).sum()


def _remove_by_own_scores(
    spec: SoftmaxSpec, guide: GuideFilter, pairing: Pairing, panel_KRG: Tensor, part: slice
) -> Tensor:
    """Remove the logits above the threshold; returns how many, an int64 scalar."""
    limit_R = own_limit(spec, guide.threshold[part])
    removed = []
    for block, tile_RG in zip(spec.blocks, panel_KRG):
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


def _remove_known(spec: SoftmaxSpec, pairing: Pairing, panel_KRG: Tensor, part: slice) -> None:
    """Remove the candidates of other rows that are known to be positives of a row's query.

    These are texts equal to the row's query or positive, and query and positive of each row that shares a
    text with them: where a query has two positives, both rows' positives belong to both.
    """
    assert pairing.rows.ids is not None
    assert pairing.candidates.ids is not None
    own_R1 = [ids_G[part, None] for ids_G in pairing.rows.ids[:2]]
    difference_RG = panel_KRG.new_empty(panel_KRG.shape[1:], dtype=own_R1[0].dtype)
    pairs_RG: Tensor | None = None  # of query and positive alike
    for block, tile_RG in zip(spec.blocks, panel_KRG):
        if block.candidates >= 2:
            others = [pairing.candidates.ids[block.candidates]]
            mask_RG = _any_equal(own_R1, others, difference_RG)
        elif pairs_RG is None:
            mask_RG = pairs_RG = _any_equal(own_R1, pairing.candidates.ids[:2], difference_RG)
            pairing.diagonal(pairs_RG, part).fill_(0)  # every row shares its texts with itself
        else:
            mask_RG = pairs_RG
        tile_RG.add_(mask_RG, alpha=REMOVED)


def _any_equal(own_R1: list[Tensor], others: Sequence[Tensor], difference_RG: Tensor) -> Tensor:
    """1 where any number of a row equals any of a candidate, else 0: [R, G]."""
    first, *more = product(own_R1, others)
    differences_RG = torch.sub(*first)
    for one_R1, other_G in more:
        differences_RG.mul_(torch.sub(one_R1, other_G, out=difference_RG))
    return differences_RG.eq_(0)


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
