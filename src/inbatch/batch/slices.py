"""Divides the rows of a global batch among ranks; every rank computes the same division by itself."""

from __future__ import annotations

from itertools import accumulate

import numpy as np


def split_rows(num_rows: int, world_size: int) -> tuple[int, ...]:
    """Rows of each rank: equal or one apart, larger first."""
    base, extra = divmod(num_rows, world_size)
    return tuple(base + (rank < extra) for rank in range(world_size))


def slice_rows(rows: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The rows [b] of a global batch [B] that one rank reads, contiguous, as many as `split_rows` says."""
    ends = [0, *accumulate(split_rows(len(rows), world_size))]
    return rows[ends[rank] : ends[rank + 1]]
