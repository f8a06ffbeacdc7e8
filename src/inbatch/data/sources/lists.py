"""Rows with lists of documents as flat arrays. Shape letters: N rows, n rows of a block, M texts.

A row's texts are its query, its positives and its negatives, in this order; those of all rows stand one
behind another, and `offsets` [N + 1] says where each row begins. Tables are passed over in blocks, so
that memory stays flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inbatch.data.ragged import RaggedValues, spans
from inbatch.data.sources.cached import Allocate
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.texts import plain

BLOCK_ROWS = 1 << 16


class Texts(NamedTuple):
    """The texts of one column in a block of rows."""

    counts: np.ndarray  # int64 [n], texts of each row
    values: pa.Array  # [M], may hold nulls

    @property
    def owner(self) -> np.ndarray:
        """Row of each text, int64 [M]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column holds texts, one a row."""
    kinds = pa.types
    kind = kind.value_type if kinds.is_dictionary(kind) else kind
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Tell whether a column holds lists, in a layout that `datasets` reads."""
    kinds = pa.types
    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def with_lists(table: pa.Table, roles: Roles, *, nulls: bool) -> Roles:
    """The roles with those document columns in `Roles.lists` that may give a row any number of texts.

    A column of scores of negatives has a role only beside one column of negatives, or beside lists.

    Args:
        table: the rows.
        roles: their columns.
        nulls: a null among negatives is a row without one, and no fault.
    """
    found = []
    for name in roles.texts[1:]:
        column = table.column(name)
        absent = name in roles.negatives and (
            (nulls and column.null_count > 0) or pa.types.is_null(column.type)
        )
        if absent or is_list(column.type):
            found.append(name)
    if found:
        return replace(roles, lists=tuple(found))
    return of_columns(roles)


def of_columns(roles: Roles) -> Roles:
    """The roles where no column holds lists: one column of scores cannot be those of several negatives."""
    if roles.negative_score is None or len(roles.negatives) == 1:
        return roles
    ignored = (*roles.ignored, roles.negative_score)
    return replace(roles, negative_score=None, ignored=ignored)


def texts_of(array: pa.Array) -> Texts:
    """The texts of a column; null is an empty list, and a value by itself a list of one."""
    if is_list(array.type):
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        counts, values = lengths.to_numpy(zero_copy_only=False), array.flatten()
    else:
        counts, values = array.is_valid().to_numpy(zero_copy_only=False), array.drop_null()
    return Texts(counts.astype(np.int64), plain(values))


def blocks(table: pa.Table, columns: tuple[str, ...]) -> Iterator[list[Texts]]:
    """The texts of some columns, block by block."""
    for block in table.select(list(columns)).to_batches(max_chunksize=BLOCK_ROWS):
        yield [texts_of(array) for array in block.columns]


def counts_of(parts: Sequence[Texts]) -> np.ndarray:
    """Texts of each row, all columns together, int64 [n]."""
    return np.sum([part.counts for part in parts], axis=0)


def count_texts(table: pa.Table, roles: Roles, allocate: Allocate) -> np.ndarray:
    """Where each row's texts begin, int64 [N + 1]."""
    offsets = allocate(table.num_rows + 1, np.int64)
    offsets[0] = row = 0
    for parts in blocks(table, roles.texts):
        counts_n = counts_of(parts)
        offsets[row + 1 : row + 1 + len(counts_n)] = offsets[row] + np.cumsum(counts_n)
        row += len(counts_n)
    return offsets


def count_positives(table: pa.Table, roles: Roles, allocate: Allocate) -> np.ndarray:
    """Positives of each row, int32 [N]."""
    counts, row = allocate(table.num_rows, np.int32), 0
    for (part,) in blocks(table, (roles.positive,)):
        counts[row : row + len(part.counts)] = part.counts
        row += len(part.counts)
    return counts


def values_of_texts(
    table: pa.Table,
    roles: Roles,
    value_of: Callable[[pa.Array], np.ndarray],
    out: np.ndarray,
) -> np.ndarray:
    """A number for each text, row by row: `out` [M], filled.

    Args:
        table: rows.
        roles: their columns.
        value_of: texts -> numbers.
        out: as long as there are texts.
    """
    start = 0
    for parts in blocks(table, roles.texts):
        counts_n = counts_of(parts)
        place_n = start + np.cumsum(counts_n) - counts_n
        for part in parts:
            out[spans(place_n, part.counts)] = value_of(part.values)
            place_n = place_n + part.counts
        start += int(counts_n.sum())
    return out


def conflict_offsets(positives_N: np.ndarray, allocate: Allocate) -> np.ndarray:
    """Where each row's query and positives begin among those of all rows, int64 [N + 1]."""
    offsets = allocate(len(positives_N) + 1, np.int64)
    offsets[0] = 0
    np.cumsum(positives_N, dtype=np.int64, out=offsets[1:])
    offsets[1:] += np.arange(1, len(offsets))
    return offsets


def conflict_values(texts: RaggedValues, offsets: np.ndarray, allocate: Allocate) -> np.ndarray:
    """The values of each row's query and positives, which are its first ones; as `texts.values`, [M]."""
    out = allocate(int(offsets[-1]), texts.values.dtype.type)
    for start in range(0, texts.num_rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, texts.num_rows)
        bounds = np.asarray(offsets[start : stop + 1])
        places = spans(np.asarray(texts.offsets[start:stop]), np.diff(bounds))
        out[bounds[0] : bounds[-1]] = texts.values[places]
    return out
