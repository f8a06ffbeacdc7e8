"""Texts and lists of texts of an Arrow column by row number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import pyarrow as pa


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
