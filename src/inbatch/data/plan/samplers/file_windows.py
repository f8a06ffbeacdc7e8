"""`NoDuplicates` over rows that are read file by file.

Windows of positions lie inside the windows of files of a `FileOrder`, so that a batch reads few
files. A row that finds no place is carried to the next windows until another window of files has passed;
then it is counted as skipped. The rows to carry are found once, at the start, from the hashes alone,
and kept for each window (at most eight batches). So a batch still costs one window's work wherever a
run resumes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inbatch.data.plan.permutation import derive_key
from inbatch.data.plan.samplers.assignment import MAX_BATCHES
from inbatch.data.plan.samplers.pools import FileOrder, Pool
from inbatch.data.plan.samplers.solving import BatchesByWindow, short_batches, solve_window

_CARRIED_BATCHES = 8


class _FileWindow(NamedTuple):
    start: int  # positions start .. stop - 1
    stop: int
    files: int  # number of the window of files
    carried: np.ndarray  # rows that come from windows before


class FileWindows:
    """The windows of a pool; `batches` are theirs."""

    def __init__(
        self,
        order: FileOrder,
        pool: Pool,
        *,
        batch_rows: int,
        window_rows: int,
        key: int,
        drop_last: bool,
    ) -> None:
        self._order, self._pool, self._batch_rows, self._key = order, pool, batch_rows, key
        self._windows: list[_FileWindow] = []
        counts, left = self._lay_out(window_rows)
        short: list[np.ndarray] = []
        if not drop_last and len(left):
            short = short_batches(pool, left, batch_rows=batch_rows, key=key)
        self.batches = BatchesByWindow(counts, self.batches_of, short, batch_rows=batch_rows)

    def batches_of(self, number: int) -> list[np.ndarray]:
        """Batches of a window."""
        return self._solve(self._windows[number])[0]

    def _lay_out(self, window_rows: int) -> tuple[list[int], np.ndarray]:
        """Find the batches of each window and the rows that it carries; returns what the last one leaves."""
        counts = []
        carried = origins = np.empty(0, dtype=np.int64)
        for files, (first, last) in enumerate(self._order.windows):
            still = origins >= files - 1
            carried, origins = carried[still], origins[still]
            for start in range(first, last, window_rows):
                window = _FileWindow(start, min(start + window_rows, last), files, carried)
                self._windows.append(window)
                batches, left = self._solve(window)
                counts.append(len(batches))
                old = np.isin(left, carried, assume_unique=True)
                by_row = dict(zip(carried.tolist(), origins.tolist()))
                carried = np.concatenate([left[old], left[~old]])
                origins = np.array(
                    [by_row[row] for row in left[old].tolist()] + [files] * int((~old).sum()),
                    dtype=np.int64,
                )
                most = _CARRIED_BATCHES * self._batch_rows
                carried, origins = carried[:most], origins[:most]
        return counts, carried

    def _solve(self, window: _FileWindow) -> tuple[list[np.ndarray], np.ndarray]:
        """Batches of a window, and its rows that find no place."""
        rows = np.concatenate([window.carried, self._order.slice(window.start, window.stop)])
        return solve_window(
            self._pool,
            rows,
            num_batches=min(len(rows) // self._batch_rows, MAX_BATCHES),
            batch_rows=self._batch_rows,
            key=derive_key(self._key, "files", window.start),
        )
