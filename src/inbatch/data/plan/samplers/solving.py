"""Rows of a window -> batches, as the samplers without duplicates share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from inbatch.data.plan.samplers.assignment import MAX_BATCHES, assign_batches
from inbatch.data.plan.samplers.conflicts import find_conflicts
from inbatch.data.plan.samplers.pools import Pool


class BatchesByWindow:
    """Batches by number. A window is solved when asked for, and forgotten when another one is.

    Args:
        counts: batches of each window.
        solve: number of a window -> its batches.
        short: batches after those of the windows, which are full.
        batch_rows: rows of a full batch.
    """

    def __init__(
        self,
        counts: Sequence[int],
        solve: Callable[[int], list[np.ndarray]],
        short: Sequence[np.ndarray],
        *,
        batch_rows: int,
    ) -> None:
        self._starts = np.cumsum([0, *counts])
        self._solve = solve
        self._short = short
        self._batch_rows = batch_rows
        self._solved: tuple[int, list[np.ndarray]] = (-1, [])

    @property
    def num_batches(self) -> int:
        """Full batches, and the short ones that follow."""
        return int(self._starts[-1]) + len(self._short)

    def rows(self, index: int) -> np.ndarray:
        """Row numbers of a batch."""
        full = int(self._starts[-1])
        if index >= full:
            return self._short[index - full]
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        if self._solved[0] != number:
            self._solved = (number, self._solve(number))
        return self._solved[1][index - int(self._starts[number])]

    def num_rows_in(self, num_batches: int) -> int:
        """Rows in the first `num_batches` batches."""
        full = min(num_batches, int(self._starts[-1]))
        return full * self._batch_rows + sum(map(len, self._short[: num_batches - full]))


def solve_window(
    pool: Pool, rows: np.ndarray, *, num_batches: int, batch_rows: int, key: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Full batches out of some rows, at most `num_batches`, and the rows that find no place."""
    if num_batches == 0:
        return [], rows
    batch_of_row = assign_batches(
        find_conflicts(pool.values(rows)), num_batches=num_batches, capacity=batch_rows, key=key
    )
    batches, left = _split(rows, batch_of_row, num_batches)
    return [batch for batch in batches if len(batch)], left


def short_batches(pool: Pool, left: np.ndarray, *, batch_rows: int, key: int) -> list[np.ndarray]:
    """Batches of what is left, fullest first; the first in any case, others from half a batch on."""
    rows = left[: MAX_BATCHES * batch_rows].astype(np.int64)
    batch_of_row = assign_batches(
        find_conflicts(pool.values(rows)),
        num_batches=MAX_BATCHES,
        capacity=batch_rows,
        key=key,
        first_fit=True,
    )
    batches, _ = _split(rows, batch_of_row, MAX_BATCHES)
    batches.sort(key=len, reverse=True)
    enough = [batch for batch in batches[1:] if 2 * len(batch) >= batch_rows]
    return [batches[0], *enough]


def _split(
    rows: np.ndarray, batch_of_row: np.ndarray, num_batches: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows of each batch in their order, and the rows without a batch (-1)."""
    order = np.argsort(batch_of_row, kind="stable")
    ends = np.searchsorted(batch_of_row[order], np.arange(-1, num_batches), side="right")
    parts = np.split(rows[order], ends[:-1])
    return parts[1:], parts[0]
