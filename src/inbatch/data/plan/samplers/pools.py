"""Pools of rows that a within-source sampler draws from.

Shape letters: n rows asked for, N rows, V values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np

from inbatch.data.plan.permutation import FilesRange
from inbatch.data.plan.plan import BatchStream, SourceInfo, StreamInfo
from inbatch.data.plan.samplers.lists import take_lists
from inbatch.data.ragged import RaggedValues
from inbatch.errors import ConfigError

_KEY_SALT = np.uint64(0xA5A5_5A5A_C3C3_3C3C)  # a row's key and a text are never the same value


class FileOrder(Protocol):
    """An order of rows in files that reads only a few files at a time."""

    @property
    def num_rows(self) -> int:
        """N."""

    @property
    def windows(self) -> list[tuple[int, int]]:
        """First position of each window of files, and the first after it."""

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Rows [stop - start] int64 at positions ``start .. stop - 1``."""


class Pool(Protocol):
    """Rows to draw from: one source, or several under one numbering."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def num_rows(self) -> int:
        """N."""

    @property
    def has_keys(self) -> bool:
        """True if rows carry keys, which are among their values."""

    def file_order(self, key: int) -> FileOrder | None:
        """The order of rows that are read file by file; None where any row may come next."""

    @property
    def mean_values(self) -> float:
        """Values of a row on average where rows have lists of them; 0 where all have as many."""

    def values(self, rows: np.ndarray) -> np.ndarray | RaggedValues:
        """Values of rows [n] that must not meet in a batch, uint64 [n, V], or as many as each row has."""


class WithinSource(Protocol):
    """Turns the rows of one pool into batches."""

    def open(self, pool: Pool, *, batch_rows: int, key: int, drop_last: bool) -> BatchStream:
        """The batches of one pass over the pool; `key` decides the order."""


@dataclass(frozen=True, eq=False)
class SourcePool:
    """The rows of one source; hashes are asked for when a value is."""

    source: SourceInfo

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def num_rows(self) -> int:
        """N."""
        return self.source.num_rows

    @property
    def has_keys(self) -> bool:
        """True if the source has keys."""
        return self.source.keys is not None

    def file_order(self, key: int) -> FilesRange | None:
        """The order of a source that is read file by file."""
        return None if self.source.stream is None else files_range(self.source.stream, key)

    @property
    def mean_values(self) -> float:
        """Values of a row on average, of a source with lists."""
        if not isinstance(self._hashes, RaggedValues):
            return 0
        return len(self._hashes.values) / max(self.num_rows, 1) + self.has_keys

    def values(self, rows: np.ndarray) -> np.ndarray | RaggedValues:
        """Hashes of the texts, and of the key where the source has one."""
        if isinstance(self._hashes, RaggedValues):
            keys_n = self._columns[-1][rows] ^ _KEY_SALT if self.has_keys else None
            return take_lists(self._hashes, rows, further_n=keys_n)
        values = np.empty((len(rows), len(self._columns)), dtype=np.uint64)
        for column, numbers in enumerate(self._columns):
            values[:, column] = numbers[rows]
        if self.source.keys is not None:
            values[:, -1] ^= _KEY_SALT
        return values

    @cached_property
    def _columns(self) -> list[np.ndarray]:
        lists = isinstance(self._hashes, RaggedValues)
        columns = [] if lists else [np.asarray(column) for column in self._hashes]
        return columns if self.source.keys is None else [*columns, np.asarray(self.source.keys())]

    @cached_property
    def _hashes(self) -> np.ndarray | RaggedValues:
        if self.source.conflicts is not None:
            return self.source.conflicts()
        if self.source.hashes is None:
            raise ConfigError(
                f"source '{self.name}'",
                "has no text hashes, which sampler=no_duplicates needs",
                "give SourceInfo.hashes, or set sampler=batch",
            )
        return self.source.hashes()


@lru_cache(maxsize=16)  # of what it derives from many files
def files_range(stream: StreamInfo, key: int) -> FilesRange:
    """The order of rows that lie in files."""
    return FilesRange(stream.file_rows, key, stream.buffer_files)
