"""Softmaxes of rows with several positives: losses, and what the gradient needs of them.

Row i has positives p with logits z_p, and negatives, of which pair (i, p) has the sum n_p of exponentials.

- each: mean_p log(1 + n_p / e^{z_p}). Each positive against the negatives alone (MP-NCE, Lee et al. 2022,
  arXiv:2209.13430, a row weighing as much as another).
- mean: mean_p [log(n_p + S) - z_p], S = sum_p e^{z_p}: the other positives stay in the denominator (SupCon's
  "out", Khosla et al. 2020, arXiv:2004.11362).
- sum: log(1 + n / S), n being the row's sum: one good positive is enough (MIL-NCE, Miech et al. 2020,
  arXiv:1912.06430).

All three are one and the same for a row with one positive. Shape letters: R rows, k pairs of them, by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

Form = Literal["each", "mean", "sum"]
FORMS = ("each", "mean", "sum")


class Pairs(NamedTuple):
    """The (row, positive) pairs of some rows, by row."""

    row: Tensor  # int64 [k]
    starts: Tensor  # int64 [R], first pair of each row
    weight: Tensor  # [k], 1 / positives of the row

    def sum_by_row(self, values_k: Tensor) -> Tensor:
        """Sums over the pairs of each row, [R]; always in the same order."""
        return add_up(values_k[:, None], self.starts)[:, 0]

    def max_by_row(self, values_k: Tensor) -> Tensor:
        """Largest value of the pairs of each row, [R]."""
        lowest_R = values_k.new_full(self.starts.shape, -torch.inf)
        return lowest_R.scatter_reduce(0, self.row, values_k, "amax")

    def logsumexp_by_row(self, values_k: Tensor) -> Tensor:
        """Log of the sum of exponentials of the pairs of each row, [R]; of finite values."""
        peak_R = self.max_by_row(values_k)
        return peak_R + self.sum_by_row((values_k - peak_R[self.row]).exp()).log()


class TileSums(NamedTuple):
    """The negatives of a tile, by the rows of the tile: rows [R], or pairs [k]."""

    by_pair: bool
    peak: Tensor  # largest logit, or less than any
    total: Tensor  # sum of exp(logit - peak)


class Solved(NamedTuple):
    """What a panel gives: losses, and factors of the gradient with respect to logits."""

    loss: Tensor  # [R]
    own: Tensor  # [k], gradient of the rows' losses with respect to each positive's logit
    tiles: list[Tensor]  # by the rows of each tile: factor of its exp(logit - peak)


def add_up(values: Tensor, starts_R: Tensor, weight_k: Tensor | None = None) -> Tensor:
    """Sums of consecutive rows of a matrix [k, D], each times its weight: [R, D].

    In a fixed order on any device, unlike `index_add_`.
    """
    places_k = torch.arange(len(values), device=values.device)
    return embedding_bag(places_k, values, starts_R, mode="sum", per_sample_weights=weight_k)


def solve(form: Form, logit_k: Tensor, pairs: Pairs, tiles: Sequence[TileSums]) -> Solved:
    """The softmaxes of a panel.

    Args:
        form: see above.
        logit_k: of the positives.
        pairs: of the panel.
        tiles: negatives; those of a row's tile belong to each of its pairs.
    """
    return (
        _by_row(logit_k, pairs, tiles) if form == "sum" else _by_pair(form, logit_k, pairs, tiles)
    )


def _by_pair(form: Form, logit_k: Tensor, pairs: Pairs, tiles: Sequence[TileSums]) -> Solved:
    above = [  # each tile's peak over the positive
        (t.peak if t.by_pair else t.peak[pairs.row]) - logit_k for t in tiles
    ]
    gap_k = _log_add(
        [
            (t.total if t.by_pair else t.total[pairs.row]).log() + above_k
            for t, above_k in zip(tiles, above)
        ]
    )
    if form == "each":
        # log(1 + negatives / positive): exact where the positive is nearly everything.
        loss_k = torch.logaddexp(gap_k, torch.zeros_like(gap_k))
        own_k = -gap_k.sigmoid() * pairs.weight
    else:
        others_k = pairs.logsumexp_by_row(logit_k)[pairs.row] - logit_k
        loss_k = torch.logaddexp(gap_k, others_k)
        shares_R = pairs.sum_by_row(pairs.weight * (others_k - loss_k).exp())
        own_k = (-others_k).exp() * shares_R[pairs.row] - pairs.weight
    by_pair = [pairs.weight * (above_k - loss_k).exp() for above_k in above]
    factors = [f if t.by_pair else pairs.sum_by_row(f) for t, f in zip(tiles, by_pair)]
    return Solved(pairs.sum_by_row(pairs.weight * loss_k), own_k, factors)


def _by_row(logit_k: Tensor, pairs: Pairs, tiles: Sequence[TileSums]) -> Solved:
    all_R = pairs.logsumexp_by_row(logit_k)
    above = [t.peak - (all_R[pairs.row] if t.by_pair else all_R) for t in tiles]
    gaps = []
    for tile, above_r in zip(tiles, above):
        gap_r = tile.total.log() + above_r
        if tile.by_pair:  # which may be -inf, where a positive has no negatives
            peak_R = pairs.max_by_row(gap_r).clamp_min(torch.finfo(gap_r.dtype).min)
            gap_r = peak_R + pairs.sum_by_row((gap_r - peak_R[pairs.row]).exp()).log()
        gaps.append(gap_r)
    gap_R = _log_add(gaps)
    loss_R = torch.logaddexp(gap_R, torch.zeros_like(gap_R))
    own_k = -(logit_k - all_R[pairs.row]).exp() * gap_R.sigmoid()[pairs.row]
    factors = [
        (above_r - (loss_R[pairs.row] if tile.by_pair else loss_R)).exp()
        for tile, above_r in zip(tiles, above)
    ]
    return Solved(loss_R, own_k, factors)


def _log_add(logs: Sequence[Tensor]) -> Tensor:
    total, *more = logs
    for log in more:
        total = torch.logaddexp(total, log)
    return total
