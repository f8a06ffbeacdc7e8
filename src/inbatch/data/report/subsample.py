"""Subsamples hashes so that equal ones stay together. Shape letters: C text columns, N rows.

Counting repeated texts takes a sort. Where that would take minutes and gigabytes, only the texts whose hash
is a multiple of k are counted: the subsample holds all rows of such a text, so each count is exact, and k
times the numbers estimate the whole. Rows are looked at block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

COUNTED_ROWS = 2_000_000  # up to which nothing is left out
_BLOCK_ROWS = 1 << 20


def one_in(num_rows: int) -> int:
    """k for a source of N rows."""
    return max(1, num_rows // COUNTED_ROWS)


def subsample(
    hashes_of: Callable[[slice], np.ndarray], num_rows: int, *, keep_one_in: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose hash is a multiple of `keep_one_in`: their numbers (int64) and hashes.

    Args:
        hashes_of: hashes of a slice of rows, uint64.
        num_rows: N.
        keep_one_in: k; 1 keeps all.
    """
    numbers, hashes = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for block in _blocks(num_rows):
        values = np.asarray(hashes_of(block))
        kept = np.flatnonzero(values % np.uint64(keep_one_in) == 0)
        numbers.append(kept + block.start)
        hashes.append(values[kept])
    return np.concatenate(numbers), np.concatenate(hashes)


def _blocks(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, _BLOCK_ROWS):
        yield slice(start, min(start + _BLOCK_ROWS, num_rows))
