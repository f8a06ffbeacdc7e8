"""The greedy soup: which models are better together (Wortsman et al. 2022, arXiv:2203.05482, recipe 1).

Models are sorted by a held-out metric. Each is added where the mean of those that are kept and it is at least
as good as the mean without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Soup:
    """A greedy soup.

    kept: places of the models, in the order in which they were added.
    value: the metric of their mean.
    """

    kept: list[int]
    value: float


def greedy(
    values: Sequence[float], measure: Callable[[Sequence[int]], float], *, largest: bool = True
) -> Soup:
    """Choose models; of equally good ones the earlier is asked first.

    Args:
        values: the metric of each model.
        measure: the metric of the mean of models, by their places.
        largest: whether more is better.
    """
    sign = -1.0 if largest else 1.0

    def cost(value: float) -> float:
        return math.inf if math.isnan(value) else sign * value

    first, *others = sorted(range(len(values)), key=lambda place: cost(values[place]))
    soup = Soup([first], values[first])
    for place in others:
        value = measure([*soup.kept, place])
        if not math.isnan(value) and cost(value) <= cost(soup.value):
            soup = Soup([*soup.kept, place], value)
    return soup
