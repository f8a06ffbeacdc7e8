"""Batches in which no text occurs twice, over all columns and all ranks.

The shuffled order is cut into windows of up to 64 batches, and each window is solved on its own
(conflicts.py, assignment.py), so a batch costs at most one window's work wherever a run resumes. Rows that
find no place in their window wait: the leftovers of all windows form the next generation, which is cut and
solved in the same way, and so on while a generation places at least half of its rows. Hence the total work
is at most twice that of the first generation, whatever the data.

The number of steps is exact from the start. It needs no pass over the batches themselves: a sort of each
window's hashes shows which rows share a text, and where these are few (`Conflicts.is_easy`) the window is
certain to fill all of its batches. Only other windows are solved in advance. Every batch is full; with
``drop_last=False`` short ones follow at the end, each as full as the remaining texts allow, as
long as they hold half a batch. The remaining rows are counted in `Plan.skipped`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from inbatch.data.plan.permutation import ShuffledRange, derive_key
from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.data.plan.samplers.assignment import MAX_BATCHES
from inbatch.data.plan.samplers.base import Epoch, EpochSampler, single_plan
from inbatch.data.plan.samplers.conflicts import find_conflicts
from inbatch.data.plan.samplers.file_windows import FileWindows
from inbatch.data.plan.samplers.pools import Pool
from inbatch.data.plan.samplers.shuffled import check_block_rows, order_of
from inbatch.data.plan.samplers.solving import BatchesByWindow, short_batches, solve_window

_WINDOW_ROWS = 1 << 22  # larger batches get windows of fewer batches, down to 8, to bound memory
_WINDOW_VALUES = 1 << 24  # and so do rows with long lists


@dataclass(frozen=True)
class NoDuplicates(EpochSampler):
    """No text twice in a global batch; each row at most once an epoch.

    A text that is query in one row and positive in another counts; twice within one row is allowed. Negatives
    count too, except those of rows with lists: two equal ones harm nothing, one that is a positive of another
    row is for the loss to leave out (``mask_duplicates``), and texts as popular as hard negatives are would
    leave many rows without a batch. Where the source has keys, rows of one key do not meet either. A text
    with more rows than the epoch has batches cannot be placed entirely; its surplus rows, other ones in each
    epoch, are counted in `Plan.skipped`.

    Of a source that is read file by file, a row waits for no longer than file_windows.py says.

    block_rows: as in `Shuffled`.
    """

    block_rows: int = 1

    def __post_init__(self) -> None:
        check_block_rows(self.block_rows)

    def open(self, pool: Pool, *, batch_rows: int, key: int, drop_last: bool) -> BatchesByWindow:
        """One pass over a pool."""
        order = order_of(pool, key=key, block_rows=self.block_rows, batch_rows=batch_rows)
        if not isinstance(order, ShuffledRange):
            return FileWindows(
                order,
                pool,
                batch_rows=batch_rows,
                window_rows=window_rows_of(batch_rows, pool.mean_values),
                key=key,
                drop_last=drop_last,
            ).batches
        return Generations(order, pool, batch_rows=batch_rows, key=key, drop_last=drop_last).batches

    def plan_epoch(self, sources: Sequence[SourceInfo], epoch: Epoch) -> Plan:
        """The batches of an epoch of one source."""
        return single_plan(self, sources, epoch)


@dataclass(frozen=True)
class _GenerationWindow:
    """Positions ``start .. stop - 1`` of a generation, which fill `num_batches` batches."""

    generation: int
    start: int
    stop: int
    num_batches: int


def window_rows_of(batch_rows: int, mean_values: float = 0) -> int:
    """Rows of a window; `mean_values` as in `Pool`."""
    most = min(_WINDOW_ROWS, int(_WINDOW_VALUES / mean_values)) if mean_values else _WINDOW_ROWS
    return batch_rows * min(MAX_BATCHES, max(8, most // batch_rows))


class Generations:
    """The windows of a pool; `batches` are theirs."""

    def __init__(
        self, order: ShuffledRange, pool: Pool, *, batch_rows: int, key: int, drop_last: bool
    ) -> None:
        self._pool, self._batch_rows, self._key = pool, batch_rows, key
        self._slices = [order.slice]
        self._windows: list[_GenerationWindow] = []
        self._compact = np.min_scalar_type(
            order.num_rows
        )  # for rows that wait, of which may be many
        left = self._add_generations(order.num_rows)
        short: list[np.ndarray] = []
        if not drop_last and len(left):
            short = short_batches(pool, left, batch_rows=batch_rows, key=key)
        counts = [window.num_batches for window in self._windows]
        self.batches = BatchesByWindow(counts, self.batches_of, short, batch_rows=batch_rows)

    def batches_of(self, number: int) -> list[np.ndarray]:
        """Batches of a window."""
        return self._solve(self._windows[number])[0]

    def _add_generations(self, num_rows: int) -> np.ndarray:
        """Find how many batches each window fills; returns the rows that no window places."""
        left = np.empty(0, dtype=self._compact)
        while num_rows:
            before, left = num_rows, self._add_generation(num_rows)
            num_rows = len(left)
            if 2 * num_rows > before or num_rows < self._batch_rows:
                break
            self._slices.append(partial(_slice, left))
        return left

    def _add_generation(self, num_rows: int) -> np.ndarray:
        size = window_rows_of(self._batch_rows, self._pool.mean_values)
        left = [np.empty(0, dtype=self._compact)]
        for start in range(0, num_rows, size):
            window = _GenerationWindow(len(self._slices) - 1, start, min(start + size, num_rows), 0)
            num_batches, rows = self._measure(window)
            left.append(rows.astype(self._compact))  # and not a view, which would keep the window
            if num_batches:
                self._windows.append(
                    _GenerationWindow(window.generation, start, window.stop, num_batches)
                )
        return np.concatenate(left)

    def _measure(self, window: _GenerationWindow) -> tuple[int, np.ndarray]:
        """Number of batches that a window fills, and its rows that find no place."""
        full, rest = divmod(window.stop - window.start, self._batch_rows)
        if full and not rest:
            rows = self._slices[window.generation](window.start, window.stop)
            if find_conflicts(self._pool.values(rows)).is_easy(full, self._batch_rows):
                return full, rows[:0]
        batches, left = self._solve(window)
        return len(batches), left

    def _solve(self, window: _GenerationWindow) -> tuple[list[np.ndarray], np.ndarray]:
        """Batches of a window, and its rows that find no place."""
        rows = self._slices[window.generation](window.start, window.stop)
        return solve_window(
            self._pool,
            rows,
            num_batches=len(rows) // self._batch_rows,
            batch_rows=self._batch_rows,
            key=derive_key(self._key, window.generation, window.start),
        )


def _slice(rows: np.ndarray, start: int, stop: int) -> np.ndarray:
    return rows[start:stop].astype(np.int64)
