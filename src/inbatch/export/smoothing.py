"""A curve that shows where noisy values go."""

from __future__ import annotations

from collections.abc import Sequence


def smooth(values: Sequence[float], *, span: float) -> list[float]:
    """Mean around each value with weights ``(1 - 1 / span) ** distance``, to both sides.

    Weights sum to one at the ends too, so that a curve neither lags nor starts at zero.
    """
    keep = 1.0 - 1.0 / max(span, 1.0)
    past, future = _running(values, keep), _running(values[::-1], keep)[::-1]
    return [
        (before + after - value) / (weight_before + weight_after - 1.0)
        for (before, weight_before), (after, weight_after), value in zip(past, future, values)
    ]


def _running(values: Sequence[float], keep: float) -> list[tuple[float, float]]:
    """Weighted sum of the values so far, and sum of the weights."""
    total = weight = 0.0
    sums = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1.0
        sums.append((total, weight))
    return sums
