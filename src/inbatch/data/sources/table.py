"""The kept rows of a memory-mapped table. Shape letters: C text columns, N rows, B rows of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast, final

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inbatch.data.hashing import hash_column
from inbatch.data.sources.checks import Place
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.scores import scores_of_columns
from inbatch.data.sources.texts import TextColumn, characters, has_dictionary, without_dictionaries
from inbatch.errors import ConfigError

T = TypeVar("T")


@final
class RowTable:
    """Texts, hashes and lengths of rows of a table.

    Args:
        dataset: The table, without an indices mapping.
        roles: Its columns.
        keep: Row numbers that are used, int64 [N]; None for all.
        place: Where the rows come from, for messages.
    """

    def __init__(
        self, dataset: datasets.Dataset, roles: Roles, keep: np.ndarray | None, place: Place
    ) -> None:
        self._dataset, self._roles, self._keep, self._place = dataset, roles, keep, place
        self._columns: dict[str, TextColumn] = {}

    @property
    def num_rows(self) -> int:
        """Kept rows N."""
        return int(self._dataset.num_rows) if self._keep is None else len(self._keep)

    @property
    def whole(self) -> pa.Table:
        """The whole table."""
        return self._dataset.data.table

    @property
    def fingerprint(self) -> str:
        """Changes with the contents of the whole table."""
        return str(self._dataset._fingerprint)

    def read(self, rows: np.ndarray) -> list[list[str]]:
        """Texts by column, of some rows [B].

        Raises:
            ConfigError: A text that is not UTF-8.
        """
        return self._each_column(rows, TextColumn.read)

    def read_lists(self, rows: np.ndarray) -> list[list[list[str]]]:
        """Texts by column, row and place in the list, of some rows [B].

        Raises:
            ConfigError: A text that is not UTF-8.
        """
        return self._each_column(rows, TextColumn.read_lists)

    def slice(self, start: int, stop: int) -> pa.Table:
        """All used columns of the rows ``start .. stop - 1``."""
        table = self.whole.select(list(self._roles.used)).replace_schema_metadata()
        if self._keep is None or stop <= start:
            return without_dictionaries(table.slice(start, stop - start))
        rows = self._keep[start:stop]
        first = int(rows[0])
        part = table.slice(first, int(rows[-1]) + 1 - first)
        return without_dictionaries(part.take(pa.array(rows - first)))

    def kept(self, values: np.ndarray) -> np.ndarray:
        """Of values by row of the table [..., rows], those of the kept rows."""
        return values if self._keep is None else values[..., self._keep]

    def validated(self) -> pa.Table:
        """The whole table, in whose texts every byte was looked at: readers of json files take any.

        Raises:
            ConfigError: A text that is not UTF-8.
        """
        try:
            for name in self._roles.texts:
                column = self._column(name)
                if not has_dictionary(column.type):  # whose texts every chunk would look at
                    column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise not_utf8(self._place) from error
        return self.whole

    def hash_texts(self) -> np.ndarray:
        """xxhash64 of every text, uint64 [C, N].

        Raises:
            ConfigError: A text that is not UTF-8.
        """
        self.validated()
        return self.kept(np.stack([hash_column(self._filled(name)) for name in self._roles.texts]))

    def hash_keys(self) -> np.ndarray:
        """xxhash64 of every key as a text, uint64 [N]."""
        column = self._column(cast(str, self._roles.key))
        text = column.type if pa.types.is_large_string(column.type) else pa.string()
        return self.kept(hash_column(pc.fill_null(pc.cast(column, text), "")))

    def lengths(self) -> np.ndarray:
        """Characters of every text without white space around it, int32 [C, N]."""
        arrays = [
            np.concatenate([np.zeros(0, np.int32), *map(characters, self._filled(name).chunks)])
            for name in self._roles.texts
        ]
        return self.kept(np.stack(arrays).astype(np.int32, copy=False))

    def scores(self) -> np.ndarray:
        """The score of every document, float32 [C - 1, N]; NaN for none."""
        return self.kept(scores_of_columns(self.whole, self._roles))

    def _each_column(
        self, rows: np.ndarray, read: Callable[[TextColumn, np.ndarray], list[T]]
    ) -> list[list[T]]:
        table_rows = rows if self._keep is None else self._keep[rows]
        try:
            return [read(self._texts(name), table_rows) for name in self._roles.texts]
        except UnicodeDecodeError as error:
            raise not_utf8(self._place) from error

    def _column(self, name: str) -> pa.ChunkedArray:
        return self._dataset.data.column(name)

    def _filled(self, name: str) -> pa.ChunkedArray:
        """The column without the nulls of dropped rows."""
        column = self._column(name)
        return pc.fill_null(column, "") if column.null_count else column

    def _texts(self, name: str) -> TextColumn:
        if name not in self._columns:
            self._columns[name] = TextColumn(self._column(name))
        return self._columns[name]

    def __getstate__(self) -> dict[str, Any]:
        """Without the chunk handles: a DataLoader worker maps the file again."""
        return self.__dict__ | {"_columns": {}}


def not_utf8(place: Place) -> ConfigError:
    """The error for texts that are not UTF-8; those of files were checked when they were read."""
    return ConfigError(path_key(place.field), "is not UTF-8", "convert it", value=place.origin)
