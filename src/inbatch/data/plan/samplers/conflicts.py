"""Finds the rows of a window that share a value, by one sort.

Shape letters: R rows of the window, S cells (values of all rows), V values of a row (of rows with lists: the
most that one of them shares), T tied rows (they share a value with another row), G values that several rows
share.

`find_conflicts` sorts the values of all cells once, each with its cell number in the low bits, so equal
values lie side by side and say where they came from. Only tied rows need care afterwards (assignment.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inbatch.data.ragged import RaggedValues, spans

_MAX_CELLS = 1 << 25  # of `groups_TV` of rows with lists: 256 MiB
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Conflicts:
    """The rows of a window that share a value, and the values that they share."""

    num_rows: int  # R
    rows_T: np.ndarray  # int64, ascending
    groups_TV: (
        np.ndarray
    )  # int64, number of each shared value; G where a cell's value is not shared
    sizes_G: np.ndarray  # int64 [G + 1], rows that hold each value; the last entry is 1
    # The last value of all that count is one that every batch holds, so its rows wait. See `_padded`.
    last_is_closed: bool = False

    def is_easy(self, num_batches: int, capacity: int) -> bool:
        """Tell whether `assign_batches` is certain to place every tied row.

        At most half of the batches can fill up with tied rows, and each row has fewer than half of the
        batches closed to it by rows that share its values, so a place is always open.
        """
        if 2 * len(self.rows_T) > num_batches * capacity:
            return False
        degrees_T = (self.sizes_G[self.groups_TV] - 1).sum(axis=1)
        return bool(2 * degrees_T.max(initial=0) < num_batches)


def find_conflicts(values: np.ndarray | RaggedValues) -> Conflicts:
    """Rows that share a value with another row; a value twice inside one row is not a conflict.

    Args:
        values: uint64 hashes, [R, V] or as many for each row as it has. They are compared in the high bits
            that the cell number leaves free (40 for 16 million cells); two values that agree there by chance
            are only kept apart.
    """
    if isinstance(values, RaggedValues):
        cells, groups = _shared_cells(values.values)
        owners_S = np.repeat(np.arange(values.num_rows, dtype=np.int32), values.lengths)
        shared = _Shared.of(owners_S[cells].astype(np.int64), cells, groups)
        return _padded(values.num_rows, shared)
    num_rows, num_values = values.shape
    cells, groups = _shared_cells(values.reshape(-1))
    rows, columns = np.divmod(cells, num_values)
    return _by_column(num_rows, num_values, _Shared.of(rows, columns, groups))


def _shared_cells(values_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells whose value occurs more than once, and the number of that value, ascending in both."""
    bits = np.uint64(max(len(values_S) - 1, 1).bit_length())
    low = (np.uint64(1) << bits) - np.uint64(1)
    packed = values_S * _ODD  # low bits count in the high bits of the product
    packed &= ~low
    packed |= np.arange(len(values_S), dtype=np.uint64)
    packed.sort()
    starts = np.ones(len(packed) + 1, dtype=bool)
    starts[1:-1] = (packed[1:] ^ packed[:-1]) > low
    shared = np.flatnonzero(~(starts[:-1] & starts[1:]))
    groups = np.cumsum(starts[shared]) - 1
    return (packed[shared] & low).astype(np.int64), groups


class _Shared(NamedTuple):
    """Cells whose value several rows hold, one for each value and row."""

    rows: np.ndarray
    places: np.ndarray  # of the cell
    groups: np.ndarray  # number of the value
    sizes_G: np.ndarray  # rows of each value

    @classmethod
    def of(cls, rows: np.ndarray, places: np.ndarray, groups: np.ndarray) -> _Shared:
        """Leave out repetitions inside one row, given cells of values that occur more than once."""
        # A row's own cells lie side by side in a group: keep one, then drop groups that hold one row only.
        once = np.ones(len(rows), dtype=bool)
        once[1:] = (rows[1:] != rows[:-1]) | (groups[1:] != groups[:-1])
        rows, places, groups = rows[once], places[once], groups[once]
        sizes = np.bincount(groups)
        several = sizes >= 2
        kept = several[groups]
        groups = (np.cumsum(several) - 1)[groups[kept]]
        return cls(rows[kept], places[kept], groups, sizes[several])

    def tied(self, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows that hold any [T], ascending, and the place there of each cell's row."""
        tied_R = np.zeros(num_rows, dtype=bool)
        tied_R[self.rows] = True
        place_R = np.cumsum(tied_R) - 1
        return np.flatnonzero(tied_R), place_R[self.rows]


def _by_column(num_rows: int, num_values: int, shared: _Shared) -> Conflicts:
    """With a place in `groups_TV` for each column."""
    rows_T, tied = shared.tied(num_rows)
    groups_TV = np.full((len(rows_T), num_values), len(shared.sizes_G))
    groups_TV[tied, shared.places] = shared.groups
    return Conflicts(num_rows, rows_T, groups_TV, np.append(shared.sizes_G, 1))


def _padded(num_rows: int, shared: _Shared) -> Conflicts:
    """With as many places in `groups_TV` as a row needs, within bounds.

    Rows that share more values would make the table too large. They wait: they hold a value that no
    batch takes. In a later window of waiting rows they share fewer, and the table may be wider.
    """
    rows_T, tied = shared.tied(num_rows)
    bits = max(len(shared.sizes_G), 1).bit_length()
    by_row = np.sort(tied << bits | shared.groups)
    tied, groups = by_row >> bits, by_row & ((1 << bits) - 1)
    counts_T = np.bincount(tied, minlength=len(rows_T))
    most = max(1, _MAX_CELLS // max(len(rows_T), 1))
    wide_T = counts_T > most
    closed = bool(wide_T.any())
    sizes_G = np.append(shared.sizes_G, [num_rows, 1] if closed else [1])
    groups_TV = np.full((len(rows_T), min(most, counts_T.max(initial=1))), len(sizes_G) - 1)
    places = spans(0, counts_T)
    if closed:
        fits = ~wide_T[tied]
        tied, groups, places = tied[fits], groups[fits], places[fits]
        groups_TV[wide_T, 0] = len(sizes_G) - 2
    groups_TV[tied, places] = groups
    return Conflicts(num_rows, rows_T, groups_TV, sizes_G, last_is_closed=closed)
