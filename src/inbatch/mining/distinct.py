"""Distinct texts of several columns, by number, read where they are. Shape letters: n distinct texts.

A text's number is its place in the order in which the columns are read. 20 bytes a text are held, and the
hashes once more while they are found; the texts themselves stay in their files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, final

import numpy as np

from inbatch.data.hashing import hash_texts
from inbatch.errors import ConfigError


class TextColumn(Protocol):
    """A column of texts."""

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Hashes (uint64) and row numbers (int64) of all texts, in order, those of some rows at a time."""

    def read(self, rows: np.ndarray, keys: np.ndarray) -> list[str]:
        """The texts of some rows that have these hashes."""


@final
class DistinctTexts:
    """The distinct texts of some columns; equal ones are one, at the first of their places.

    Args:
        columns: in the order in which texts are numbered.
    """

    def __init__(self, columns: Sequence[TextColumn]) -> None:
        self._columns = list(columns)
        hashes, rows, column = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], []
        for number, each in enumerate(columns):
            for hashes_b, rows_b in each.blocks():
                hashes.append(hashes_b)
                rows.append(rows_b)
                column.append(np.full(len(hashes_b), number, np.int32))
        all_hashes = np.concatenate(hashes)
        _, first = np.unique(all_hashes, return_index=True)
        first.sort()
        self.hashes = all_hashes[first]  # uint64 [n]
        self._row_n = np.concatenate(rows)[first]
        self._column_n = np.concatenate([np.empty(0, np.int32), *column])[first]
        self._order = np.argsort(self.hashes)

    def __len__(self) -> int:
        return len(self.hashes)

    def numbers_of(self, hashes: np.ndarray) -> np.ndarray:
        """Number of the text with each hash, int64; -1 where there is none."""
        if not len(self):
            return np.full(len(hashes), -1)
        place = np.searchsorted(self.hashes, hashes, sorter=self._order).clip(max=len(self) - 1)
        number = self._order[place]
        return np.where(self.hashes[number] == hashes, number, -1)

    def rows_of_first_column(self) -> np.ndarray:
        """Rows of the texts that the first column has, which have the first numbers, int64."""
        return np.asarray(self._row_n[self._column_n == 0])

    def read(self, start: int, stop: int) -> list[str]:
        """The texts ``start .. stop - 1``."""
        return self.take(np.arange(start, stop))

    def take(self, numbers: np.ndarray) -> list[str]:
        """The texts with these numbers, in this order.

        Raises:
            ConfigError: a text is not the one that was hashed.
        """
        numbers = np.asarray(numbers, np.int64)
        texts = np.empty(len(numbers), dtype=object)
        column, row, hashes = self._column_n[numbers], self._row_n[numbers], self.hashes[numbers]
        for number in np.unique(column).tolist():
            of = np.flatnonzero(column == number)
            texts[of] = self._columns[number].read(row[of], hashes[of])
        found: list[str] = texts.tolist()
        if not np.array_equal(hash_texts(found), hashes):
            raise ConfigError(
                "data.cache_dir",
                "holds text hashes that do not belong to the data",
                "delete its text_hashes-*.npy files",
            )
        return found
