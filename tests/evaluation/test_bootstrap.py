"""Paired bootstrap: the intervals of scipy, the same rows for all models, metrics that are no mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from inbatch.evaluation.bootstrap import Sample, draw, interval, largest_of, mean_of


def test_intervals_of_a_difference_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.normal(size=200)
    first, second = (hardness + rng.normal(0.2 * i, 0.3, 200) for i in range(2))
    draws = [draw(mean_of(values), resamples=9000, seed=(3, 0)) for values in (first, second)]
    ours = interval(draws[1] - draws[0], confidence=0.9)
    theirs = stats.bootstrap(
        (first, second),
        lambda a, b, axis: b.mean(axis=axis) - a.mean(axis=axis),
        paired=True,
        confidence_level=0.9,
        n_resamples=9000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)
    # Without pairs it is as wide as the rows differ in hardness.
    alone = draw(mean_of(first), resamples=9000, seed=(4, 0))
    apart = interval(draws[1] - alone, confidence=0.9)
    assert apart.high - apart.low > 2 * width


def test_the_same_seed_draws_the_same_rows_whatever_the_model() -> None:
    values = np.arange(50.0)
    one, other = (draw(mean_of(v), resamples=20, seed=(0, 1)) for v in (values, 3 * values))
    np.testing.assert_allclose(other, 3 * one)
    assert not np.allclose(one, draw(mean_of(values), resamples=20, seed=(0, 2)))
    assert len(set(one)) > 10


def test_a_metric_that_is_no_mean_is_computed_on_the_rows_of_a_draw() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.normal(size=(2, 60))

    def correlation(places: np.ndarray) -> float:
        return float(stats.spearmanr(labels[places], scores[places]).statistic)

    sample = Sample(60, correlation)
    assert sample.value == correlation(np.arange(60))
    found = draw(sample, resamples=50, seed=(0,))
    generator = np.random.default_rng((0,))
    expected = [correlation(generator.integers(60, size=60)) for _ in range(50)]
    np.testing.assert_array_equal(found, expected)
    best = largest_of([sample, Sample(60, lambda places: 0.9)])
    assert best.value == 0.9
    assert best.size == 60


def test_draws_without_a_metric_are_left_out() -> None:
    found = interval(np.array([0.0, 1.0, math.nan, 2.0]), confidence=0.5)
    assert (found.low, found.high) == (0.5, 1.5)
    assert found.leaves_out_zero
    none = interval(np.empty(0), confidence=0.95)
    assert math.isnan(none.low)
    assert not none.leaves_out_zero
