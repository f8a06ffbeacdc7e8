"""Rows of numbers, and the texts that these stand for: a stand-in for a table of texts that copies none.

Columns of texts are Arrow dictionaries over a memory-mapped corpus, ``dictionary<int32, large_string>`` or
lists of it. So a row takes 4 bytes for each of its texts, however long they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import pyarrow as pa
from datasets.table import InMemoryTable

from inbatch.data.formats.id_rows import CORPUS, QUERIES, ROWS
from inbatch.data.formats.text_index import TextIndex

_TEXTS = {"query": QUERIES, "positive": CORPUS, "negative": CORPUS}


@final
class IndexedRows:
    """The rows of a folder that `id_rows` describes, with what `Source` uses of a `datasets.Dataset`.

    Args:
        folder: Of the rows.
        fingerprint: Of what they were made from.
        num_rows: The first rows only; None for all.
    """

    def __init__(self, folder: Path, *, fingerprint: str, num_rows: int | None = None) -> None:
        self._folder, self._fingerprint, self._num_rows = folder, fingerprint, num_rows
        self.data = InMemoryTable(self._open())

    @property
    def num_rows(self) -> int:
        """Rows R."""
        return int(self.data.num_rows)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns that have a value."""
        return list(self.data.column_names)

    def select(self, rows: range) -> IndexedRows:
        """The first rows only: ``rows`` starts at 0."""
        fingerprint = f"{self._fingerprint}:{rows.stop}"
        return IndexedRows(self._folder, fingerprint=fingerprint, num_rows=rows.stop)

    def _open(self) -> pa.Table:
        table = pa.ipc.open_stream(pa.memory_map(str(self._folder / ROWS))).read_all()
        if self._num_rows is not None:
            table = table.slice(0, self._num_rows)
        texts = {
            name: TextIndex(self._folder / name).texts for name in dict.fromkeys(_TEXTS.values())
        }
        columns: dict[str, pa.ChunkedArray] = {}
        for name in table.column_names:
            column = table.column(name)
            if name in _TEXTS:
                own = texts[_TEXTS[name]]
                kind = _kind(column.type, own)
                column = pa.chunked_array([_named(c, own) for c in column.chunks], type=kind)
            if (
                table.num_rows == 0
                or name == "query"
                or any(len(chunk.flatten()) for chunk in column.chunks)
            ):
                columns[name] = column
        return pa.table(columns)

    def __getstate__(self) -> dict[str, Any]:
        """Without the map."""
        return {name: value for name, value in self.__dict__.items() if name != "data"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self.data = InMemoryTable(self._open())


def _named(chunk: pa.Array, texts: pa.LargeStringArray) -> pa.Array:
    """The texts that numbers, or lists of numbers, stand for."""
    if isinstance(chunk, pa.ListArray):
        values = pa.DictionaryArray.from_arrays(chunk.values, texts, safe=False)
        return pa.ListArray.from_arrays(chunk.offsets, values)
    return pa.DictionaryArray.from_arrays(chunk, texts, safe=False)


def _kind(kind: pa.DataType, texts: pa.LargeStringArray) -> pa.DataType:
    named = pa.dictionary(pa.int32(), texts.type)
    return pa.list_(named) if pa.types.is_list(kind) else named
