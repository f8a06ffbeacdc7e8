"""Texts of an Arrow column by row number."""

from __future__ import annotations

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
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        places = (rows - self._starts[numbers]).tolist()
        return [self._chunks[k][i].as_py() for k, i in zip(numbers.tolist(), places)]
