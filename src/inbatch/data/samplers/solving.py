"""Rows of a window -> batches, as the samplers without duplicates share it."""

from __future__ import annotations

import numpy as np

from inbatch.data.samplers.base import Pool
from inbatch.data.samplers.conflicts import MAX_BATCHES, assign_batches, find_conflicts


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
    """Rows of each batch in their order, and the rows of none (-1)."""
    order = np.argsort(batch_of_row, kind="stable")
    ends = np.searchsorted(batch_of_row[order], np.arange(-1, num_batches), side="right")
    parts = np.split(rows[order], ends[:-1])
    return parts[1:], parts[0]
