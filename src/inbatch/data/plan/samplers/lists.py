"""Values of rows with lists, taken from arrays that may be memory-mapped, for any rows in any order.

Shape letters: n rows, V values of a row.

Memory is what costs: a row is a miss in the offsets and one in the values. Rows are taken in slices, so
that the end of a row's list, beside its start, and all temporaries are still in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inbatch.data.ragged import RaggedValues

_SLICE = 1 << 14  # rows


def take_lists(
    lists: RaggedValues, rows: np.ndarray, *, further_n: np.ndarray | None = None
) -> np.ndarray | RaggedValues:
    """Values of rows [n]: a matrix [n, V] if all have as many, which is faster to work on.

    Args:
        lists: values of all rows.
        rows: int64.
        further_n: one more value for each of the rows, its last.
    """
    lists = RaggedValues(
        np.asarray(lists.values), np.asarray(lists.offsets)
    )  # and no memmap's views
    parts = [lists.take(rows[start : start + _SLICE]) for start in range(0, len(rows), _SLICE)]
    taken = _concatenate(parts)
    if further_n is not None:
        taken = _append(taken, further_n)
    lengths = taken.lengths
    if len(rows) and (lengths == lengths[0]).all():
        return taken.values.reshape(len(rows), -1)
    return taken


def merge(
    parts: Sequence[np.ndarray | RaggedValues], part_n: np.ndarray
) -> np.ndarray | RaggedValues:
    """Rows of several tables under one numbering, as of `take_lists`.

    Args:
        parts: values of rows, uint64; matrices or lists.
        part_n: for each row the number of its table; a table's rows keep their order.
    """
    matrices = [part for part in parts if isinstance(part, np.ndarray)]
    if len(matrices) == len(parts) and len({part.shape[1] for part in matrices}) == 1:
        values = np.empty((len(part_n), matrices[0].shape[1]), dtype=np.uint64)
        for number, matrix in enumerate(matrices):
            values[part_n == number] = matrix
        return values
    tables = [part if isinstance(part, RaggedValues) else _as_lists(part) for part in parts]
    lengths_n = np.empty(len(part_n), dtype=np.int64)
    for number, table in enumerate(tables):
        lengths_n[part_n == number] = table.lengths
    offsets = np.concatenate([[0], np.cumsum(lengths_n)])
    merged = RaggedValues(np.empty(offsets[-1], dtype=np.uint64), offsets)
    for number, table in enumerate(tables):
        places, _ = merged.places(np.flatnonzero(part_n == number))
        merged.values[places] = table.values
    return merged


def _concatenate(parts: Sequence[RaggedValues]) -> RaggedValues:
    """Rows of all parts, one part behind the other."""
    values = [np.empty(0, dtype=np.uint64), *(part.values for part in parts)]
    lengths = [np.zeros(1, dtype=np.int64), *(part.lengths for part in parts)]
    return RaggedValues(np.concatenate(values), np.cumsum(np.concatenate(lengths)))


def _as_lists(values_nV: np.ndarray) -> RaggedValues:
    """A matrix, row by row."""
    num_rows, width = values_nV.shape
    return RaggedValues(values_nV.reshape(-1), np.arange(num_rows + 1) * width)


def _append(lists: RaggedValues, further_n: np.ndarray) -> RaggedValues:
    offsets = lists.offsets + np.arange(len(lists.offsets))
    last = np.zeros(offsets[-1], dtype=bool)
    last[offsets[1:] - 1] = True
    values = np.empty(offsets[-1], dtype=np.uint64)
    values[last], values[~last] = further_n, lists.values
    return RaggedValues(values, offsets)
