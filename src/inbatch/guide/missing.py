"""The distinct texts that a run needs from a table.

Shape letters: N texts of a column, b texts of a block of its rows, n missing texts.

Ranks divide the texts by hash: rank r of W embeds those whose hash leaves the remainder r. So each
rank finds its part without communication, parts are equal up to chance, and no text is embedded twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inbatch.data.collate import widest_source
from inbatch.data.hashing import hash_texts
from inbatch.data.ragged import spans
from inbatch.data.sources.columns import resolve_prompts
from inbatch.data.sources.load import Source
from inbatch.data.sources.ragged_rows import RaggedRows
from inbatch.errors import ConfigError
from inbatch.guide.store import Table

CHECKED_TEXTS = 4_000_000  # texts that are looked up before the first step, about 1 s
_BLOCK_ROWS = 1 << 18  # whose texts are looked at together


class SourceColumn(NamedTuple):
    """One text column of a source; `rows` are those that will be read, None for all.

    Of rows with lists column 1 has all positives, and column 2 all negatives.
    """

    source: Source
    number: int
    rows: np.ndarray | None = None

    @property
    def num_texts(self) -> int:
        """Texts N, repeated ones included."""
        ragged = self.source.ragged
        if ragged is None:
            return self.source.num_rows if self.rows is None else len(self.rows)
        return sum(int(self._bounds(ragged, rows)[1].sum()) for rows in self._row_blocks())

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Hashes (uint64) and row numbers (int64) of all texts, in order, those of some rows at a time."""
        ragged = self.source.ragged
        for rows in self._row_blocks():
            if ragged is None:
                yield self.source.text_hashes()[self.number, rows], rows
                continue
            starts, lengths = self._bounds(ragged, rows)
            places = spans(starts, lengths)
            yield ragged.hashes().values[places], np.repeat(rows, lengths)

    def spaced(self, stride: int) -> SourceColumn:
        """The same column of every `stride`-th row."""
        if self.rows is None:
            return self._replace(rows=np.arange(0, self.source.num_rows, stride))
        return self._replace(rows=self.rows[::stride])

    def read(self, rows: np.ndarray, keys: np.ndarray) -> list[str]:
        """The texts of some rows that have these hashes."""
        if self.source.ragged is None:
            return list(self.source.read(rows)[0][self.number])
        found = self.source.ragged.read(np.unique(rows))
        texts = [*found.queries, *found.documents]
        by_key = dict(zip(hash_texts(texts).tolist(), texts))
        return [by_key.get(key, "") for key in keys.tolist()]

    def _row_blocks(self) -> Iterator[np.ndarray]:
        """Numbers of the rows, block by block; of no rows one block, which has their type."""
        num_rows = self.source.num_rows if self.rows is None else len(self.rows)
        for start in range(0, max(num_rows, 1), _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, num_rows)
            yield np.arange(start, stop) if self.rows is None else self.rows[start:stop]

    def _bounds(self, ragged: RaggedRows, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place of each row's first text among those of all rows, and how many it has in this column."""
        offsets = ragged.hashes().offsets
        behind_query = offsets[rows] + 1
        behind_positives = behind_query + ragged.positive_counts()[rows]
        bounds = [offsets[rows], behind_query, behind_positives, offsets[rows + 1]]
        return bounds[self.number], bounds[self.number + 1] - bounds[self.number]


@dataclass(frozen=True, slots=True)
class Missing:
    """Distinct texts that a table lacks, in the order in which their columns are read."""

    columns: tuple[SourceColumn, ...]
    keys_n: np.ndarray  # uint64, hash of the text
    column_n: np.ndarray  # int32, which of `columns` holds it
    row_n: np.ndarray  # int64, and where
    place_n: np.ndarray  # int64, its number among the distinct texts, those in the table too

    def __len__(self) -> int:
        return len(self.keys_n)

    def __getitem__(self, part: slice | np.ndarray) -> Missing:
        parts = (of[part] for of in (self.keys_n, self.column_n, self.row_n, self.place_n))
        return Missing(self.columns, *parts)

    def read(self) -> list[str]:
        """The texts.

        Raises:
            ConfigError: a text is not the one that was hashed.
        """
        texts: list[str] = []
        for number in np.unique(self.column_n).tolist():  # sorted, as `column_n` is
            of = self.column_n == number
            texts += self.columns[number].read(self.row_n[of], self.keys_n[of])
        if not np.array_equal(hash_texts(texts), self.keys_n):
            raise ConfigError(
                "data.cache_dir",
                "holds text hashes that do not belong to the data",
                "delete its text_hashes-*.npy files",
            )
        return texts


def columns_by_prompt(
    sources: Sequence[Source], prompts: Mapping[str, str]
) -> dict[str, tuple[SourceColumn, ...]]:
    """Text columns by the prompt that the guide puts in front of them.

    A source that may stand in one batch with others is there under the prompts of such a batch too, see
    `widest_source`. They differ where a column has another role's name.
    """
    columns: dict[str, tuple[SourceColumn, ...]] = {}
    for source in sources:
        shared = widest_source(sources)
        plain, mixed = (resolve_prompts(prompts, each.roles) for each in (source, shared))
        fits = len(plain) == len(mixed) or source.ragged is not None
        pairs = list(zip(plain, mixed[: len(plain)] if fits else plain))
        if source.ragged is not None:
            pairs = pairs[:3]  # query, positives, and all negatives
        for number, pair in enumerate(pairs):
            for prompt in dict.fromkeys(pair):
                columns[prompt] = (*columns.get(prompt, ()), SourceColumn(source, number))
    return columns


def of_rows(
    columns: Mapping[str, Sequence[SourceColumn]], rows: Mapping[str, np.ndarray]
) -> dict[str, tuple[SourceColumn, ...]]:
    """The columns by prompt, limited to some rows of each source; sources that are not named are left out."""
    limited = {
        prompt: tuple(
            column._replace(rows=rows[column.source.name])
            for column in columns[prompt]
            if column.source.name in rows
        )
        for prompt in columns
    }
    return {prompt: those for prompt, those in limited.items() if those}


def find_missing(
    columns: Sequence[SourceColumn], table: Table, *, rank: int = 0, world_size: int = 1
) -> Missing:
    """This rank's part of the distinct texts of some columns that the table lacks.

    Takes about 50 bytes for each of the rank's texts, repeated ones included.
    """
    keys, numbers, rows = [], [], []
    for number, column in enumerate(columns):
        for hashes_b, rows_b in column.blocks():
            mine = np.flatnonzero(hashes_b % np.uint64(world_size) == rank)
            keys.append(hashes_b[mine])
            numbers.append(np.full(len(mine), number, dtype=np.int32))
            rows.append(rows_b[mine])
    all_keys = np.concatenate(keys)
    distinct, first = np.unique(all_keys, return_index=True)
    chosen = np.sort(first[~table.present(distinct, table.shards())])
    return Missing(
        tuple(columns),
        all_keys[chosen],
        np.concatenate(numbers)[chosen],
        np.concatenate(rows)[chosen],
        np.searchsorted(np.sort(first), chosen),
    )


def keys_to_check(columns: Sequence[SourceColumn]) -> np.ndarray:
    """Hashes of all texts, or of about `CHECKED_TEXTS`, those of evenly spaced rows, uint64."""
    stride = max(1, -(-sum(column.num_texts for column in columns) // CHECKED_TEXTS))
    spaced = (column.spaced(stride) for column in columns)
    hashes = [hashes for column in spaced for hashes, _ in column.blocks()]
    return np.concatenate([np.empty(0, dtype=np.uint64), *hashes])
