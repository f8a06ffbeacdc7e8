"""Which texts a run has embedded before its first step, and which once training gets there.

The first portion is that of the first batches. Each further one is that of as many batches as there were
before: the wait for the first loss is short, that for a later step at most as long as all that was done until
then, and portions are few, since the store's index is made anew after each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

Rows = Mapping[str, np.ndarray]  # row numbers by source name


class Portion(NamedTuple):
    """Texts that are embedded together.

    start: number of the first batch of the run that needs them.
    rows: gives the rows that have them; None for all rows.
    """

    start: int = 0
    rows: Callable[[], Rows] | None = None


def portions_of_run(
    rows_of: Callable[[int, int], Rows], *, planned: int, num_batches: float, first: int
) -> tuple[Portion, ...]:
    """The portions of a run, in order.

    Args:
        rows_of: (first batch, batch behind the last) -> their rows, within the first epoch.
        planned: batches of the first epoch. What later ones read beside its rows is a portion of its own.
        num_batches: batches of the run, infinite without a limit.
        first: batches of the first portion. A run of no more has all rows embedded at once, or those that it
            reads where it ends within its first epoch.
    """
    end = int(min(planned, num_batches))
    if end <= first and num_batches >= planned:
        return (Portion(),)
    starts = [0]
    while first < end:
        starts.append(first)
        first *= 2
    parts = [Portion(a, partial(rows_of, a, b)) for a, b in pairwise([*starts, end])]
    return (*parts, Portion(planned)) if num_batches > planned else tuple(parts)
