"""Hashes of made-up texts, some of which occur more than once; for bench_data.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inbatch.data.plan.permutation import keyed_hash
from inbatch.data.plan.plan import SourceInfo
from inbatch.data.ragged import RaggedValues

_MOST_TEXTS = 64  # of a row with lists
_BLOCK_ROWS = 1 << 20


def synthetic_hashes(
    rows: np.ndarray, *, columns: int, num_rows: int, duplicates: float, hot: float = 0.0
) -> np.ndarray:
    """Hashes of some rows, uint64 [C, n]; a repeated text has about four copies, in any column."""
    out = np.empty((columns, len(rows)), dtype=np.uint64)
    num_repeated = max(1, int(num_rows * columns * duplicates / 4))
    for column in range(columns):
        cells = rows.astype(np.uint64) * np.uint64(columns) + np.uint64(column)
        out[column] = _hash_cells(cells, num_repeated, duplicates)
    out[0, keyed_hash(rows.astype(np.uint64), key=4) < np.uint64(int(hot * (2**64 - 1)))] = 1
    return out


def write_lists(
    folder: Path, num_rows: int, *, most_positives: int, most_negatives: int, duplicates: float
) -> None:
    """Write hashes of rows with lists: 1 to `most_positives` positives and 0 to `most_negatives` negatives.

    A repeated text has about four copies among queries and positives, and negatives are repeated texts too.
    """
    blocks = [
        np.arange(start, min(start + _BLOCK_ROWS, num_rows))
        for start in range(0, num_rows, _BLOCK_ROWS)
    ]
    known, texts = _offsets(folder, "known", num_rows), _offsets(folder, "texts", num_rows)
    for rows in blocks:
        numbers = rows.astype(np.uint64)
        known_n = 2 + (keyed_hash(numbers, key=5) % np.uint64(most_positives)).astype(np.int64)
        further_n = (keyed_hash(numbers, key=6) % np.uint64(most_negatives + 1)).astype(np.int64)
        for offsets, counts_n in ((known, known_n), (texts, known_n + further_n)):
            offsets[rows[0] + 1 : rows[-1] + 2] = offsets[rows[0]] + np.cumsum(counts_n)
    num_repeated = max(1, int(known[-1] * duplicates / 4))
    out = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", np.uint64, (int(offsets[-1]),)
        )
        for name, offsets in (("known", known), ("texts", texts))
    }
    for rows in blocks:
        bounds = np.asarray(texts[rows[0] : rows[-1] + 2])
        counts_n = np.diff(bounds)
        place_T = np.arange(bounds[-1] - bounds[0]) - np.repeat(bounds[:-1] - bounds[0], counts_n)
        cells_T = np.repeat(rows, counts_n) * _MOST_TEXTS + place_T
        hashes_T = _hash_cells(cells_T.astype(np.uint64), num_repeated, duplicates)
        known_n = np.diff(known[rows[0] : rows[-1] + 2])
        out["texts"][bounds[0] : bounds[-1]] = hashes_T
        out["known"][known[rows[0]] : known[rows[-1] + 1]] = hashes_T[
            place_T < np.repeat(known_n, counts_n)
        ]
    for array in (known, texts, *out.values()):
        array.flush()


def read_lists(folder: Path) -> SourceInfo:
    """The written rows, memory-mapped."""

    def load(name: str) -> RaggedValues:
        values = np.load(folder / f"{name}.npy", mmap_mode="r")
        return RaggedValues(values, np.load(folder / f"{name}_offsets.npy", mmap_mode="r"))

    known, texts = load("known"), load("texts")
    return SourceInfo("synthetic", known.num_rows, conflicts=lambda: known, ragged=lambda: texts)


def _offsets(folder: Path, name: str, num_rows: int) -> np.memmap:
    path = folder / f"{name}_offsets.npy"
    return np.lib.format.open_memmap(path, "w+", np.int64, (num_rows + 1,))


def _hash_cells(cells: np.ndarray, num_repeated: int, duplicates: float) -> np.ndarray:
    dice = keyed_hash(cells, key=1)
    repeated = (dice >> np.uint64(11)).astype(np.float64) * 2.0**-53 < duplicates
    texts = np.where(repeated, keyed_hash(cells, key=2) % np.uint64(num_repeated), ~cells)
    return keyed_hash(texts, key=3)
