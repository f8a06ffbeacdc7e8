"""Hashes of made-up texts, some of which occur more than once; for bench_data.py."""

from __future__ import annotations

import numpy as np

from inbatch.data.plan.permutation import keyed_hash


def synthetic_hashes(
    rows: np.ndarray, *, columns: int, num_rows: int, duplicates: float, hot: float = 0.0
) -> np.ndarray:
    """Hashes of some rows, uint64 [C, n]; a repeated text has about four copies, in any column."""
    out = np.empty((columns, len(rows)), dtype=np.uint64)
    num_repeated = max(1, int(num_rows * columns * duplicates / 4))
    for column in range(columns):
        cells = rows.astype(np.uint64) * np.uint64(columns) + np.uint64(column)
        dice = keyed_hash(cells, key=1)
        repeated = (dice >> np.uint64(11)).astype(np.float64) * 2.0**-53 < duplicates
        texts = np.where(repeated, keyed_hash(cells, key=2) % np.uint64(num_repeated), ~cells)
        out[column] = keyed_hash(texts, key=3)
    out[0, keyed_hash(rows.astype(np.uint64), key=4) < np.uint64(int(hot * (2**64 - 1)))] = 1
    return out
