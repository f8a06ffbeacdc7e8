"""Texts and lists of texts of an Arrow column by row number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def plain(texts: pa.Array) -> pa.Array:
    """The same texts in a layout that Arrow's functions for texts take: no dictionary, no view."""
    if pa.types.is_dictionary(texts.type):
        return texts.dictionary_decode()
    if pa.types.is_string_view(texts.type):
        return texts.cast(pa.large_string())
    return texts.cast(pa.string()) if pa.types.is_null(texts.type) else texts


def characters(texts: pa.Array) -> np.ndarray:
    """Characters of each text without white space around it, int32 [n]."""
    lengths = pc.utf8_length(pc.utf8_trim_whitespace(plain(texts)))
    return lengths.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)


def has_dictionary(kind: pa.DataType) -> bool:
    """Tell whether a column, or what its lists hold, stands for texts of a dictionary."""
    inner = getattr(kind, "value_type", kind)
    return bool(pa.types.is_dictionary(kind) or pa.types.is_dictionary(inner))


def without_dictionaries(table: pa.Table) -> pa.Table:
    """The same rows with the texts themselves, to be written."""
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if has_dictionary(column.type):
            column = pa.chunked_array([_decoded(chunk) for chunk in column.chunks])
        columns[name] = column
    return pa.table(columns)


def _decoded(chunk: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(chunk.type):
        return chunk.dictionary_decode()
    starts = np.append(0, np.cumsum(pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(False)))
    values = chunk.flatten().dictionary_decode()
    return pa.LargeListArray.from_arrays(pa.array(starts.astype(np.int64)), values)


#: RE2, of texts that read as a number.
NUMBER = r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


@final
class TextColumn:
    """A memory-mapped column, and where its chunks begin.

    `ChunkedArray.take` joins all chunks first, O(N) for each batch; a scalar takes about 1 us.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = column.chunks
        self._starts = np.cumsum([0, *map(len, self._chunks)])

    def read(self, rows: np.ndarray) -> list[str]:
        """The texts of some rows."""
        return [self._chunks[k][i].as_py() for k, i in self._places(rows)]

    def read_lists(self, rows: np.ndarray) -> list[list[str]]:
        """The lists of some rows; null is an empty list, and a text by itself a list of one."""
        lists: list[list[str]] = []
        for scalar in (self._chunks[k][i] for k, i in self._places(rows)):
            if not scalar.is_valid:
                lists.append([])
            elif isinstance(scalar, pa.ListScalar):
                lists.append(scalar.values.to_pylist())
            else:
                lists.append([scalar.as_py()])
        return lists

    def _places(self, rows: np.ndarray) -> Iterator[tuple[int, int]]:
        """Chunk of each row, and its place there."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        return zip(numbers.tolist(), (rows - self._starts[numbers]).tolist())
