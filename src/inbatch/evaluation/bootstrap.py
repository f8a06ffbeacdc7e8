"""Paired bootstrap over the rows of evaluation sets; pure functions.

A metric is computed again on rows that are drawn with replacement, as many as there are (Efron 1979), the
same rows for each model: what models share (hard and easy rows) then cancels in their difference. Intervals
are percentiles of the draws.

Shape letters: N rows of a set, B draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Sample:
    """A metric of one model on one set, as a function of its rows.

    size: rows N, or queries.
    metric: places of rows, int64 of any length -> the metric of those rows, each as often as it is there.
    """

    size: int
    metric: Callable[[np.ndarray], float]

    @property
    def value(self) -> float:
        """The metric of all rows, once each."""
        return self.metric(np.arange(self.size))


def mean_of(values_N: np.ndarray) -> Sample:
    """The metric that is the mean of a number for each row."""
    return Sample(len(values_N), lambda places: float(values_N[places].mean()))


def largest_of(samples: Sequence[Sample]) -> Sample:
    """The largest of several metrics of the same rows; NaN if one is."""
    if len(samples) == 1:
        return samples[0]
    return Sample(
        samples[0].size, lambda places: float(np.max([each.metric(places) for each in samples]))
    )


@dataclass(frozen=True, slots=True)
class Interval:
    """The middle of the draws of a metric, `low` to `high`."""

    low: float
    high: float

    @property
    def leaves_out_zero(self) -> bool:
        """Whether all of it is on one side of 0."""
        return self.low > 0 or self.high < 0


def draw(sample: Sample, *, resamples: int, seed: Sequence[int]) -> np.ndarray:
    """The metric on each draw of rows: float64 [B].

    Args:
        sample: of a model; those of other models with the same size and seed get the same rows.
        resamples: B.
        seed: of the draws, other numbers for other sets.
    """
    generator = np.random.default_rng(seed)
    return np.array(
        [sample.metric(generator.integers(sample.size, size=sample.size)) for _ in range(resamples)]
    )


def interval(draws_B: np.ndarray, *, confidence: float) -> Interval:
    """The percentile interval of draws; those that are NaN, where a draw has no metric, are left out."""
    finite = draws_B[np.isfinite(draws_B)]
    if not len(finite):
        return Interval(float("nan"), float("nan"))
    outside = 50 * (1 - confidence)
    low, high = np.percentile(finite, [outside, 100 - outside])
    return Interval(float(low), float(high))
