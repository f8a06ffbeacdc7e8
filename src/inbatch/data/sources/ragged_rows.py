"""Rows with lists of documents: their texts, and flat arrays over all of them.

Shape letters: N rows, B rows of a batch, M documents of these.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple, Protocol, final

import numpy as np
import pyarrow as pa

from inbatch.data.hashing import hash_array
from inbatch.data.ragged import RaggedValues
from inbatch.data.sources import lists
from inbatch.data.sources.cached import Allocate
from inbatch.data.sources.choice import Draw, ListChoice, Picks
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.prepared import (
    CONFLICT_HASHES,
    CONFLICT_OFFSETS,
    DOCUMENT_SCORES,
    POSITIVE_COUNTS,
    TEXT_HASHES,
    TEXT_LENGTHS,
    TEXT_OFFSETS,
)
from inbatch.data.sources.scores import num_rows_without, scores_of_lists
from inbatch.data.sources.table import RowTable
from inbatch.data.sources.texts import characters


class ListRows(NamedTuple):
    """Texts of rows with lists; `documents` are those of `picks`, row by row."""

    queries: list[str]  # [B]
    documents: list[str]  # [M]
    picks: Picks


class ReadsLists(Protocol):
    """Rows of a table, or of files that are streamed."""

    @property
    def num_rows(self) -> int:
        """N."""

    def read_lists(self, rows: np.ndarray) -> list[list[list[str]]]:
        """Texts by column, row and place in the list."""


class Stored(Protocol):
    """Gives an array of a source by its name; one that is nowhere yet is computed."""

    def __call__(self, name: str, compute: Callable[[Allocate], np.ndarray]) -> np.ndarray:
        """The array; of a prepared source it may go on behind the rows in use."""


@final
class RaggedRows:
    """The lists of a source.

    Args:
        name: Of the source.
        rows: Its N rows.
        roles: Its columns.
        choice: Which documents of its lists a row brings into a batch.
        stored: Keeps arrays.
    """

    def __init__(
        self,
        name: str,
        rows: ReadsLists,
        roles: Roles,
        choice: ListChoice,
        stored: Stored,
    ) -> None:
        self.choice = choice
        self._name, self._rows, self._roles, self._stored = name, rows, roles, stored

    def chosen(self, choice: ListChoice) -> RaggedRows:
        """The same lists, with another choice."""
        return RaggedRows(self._name, self._rows, self._roles, choice, self._stored)

    def read(self, rows: np.ndarray, draw: Draw | None = None) -> ListRows:
        """Queries and documents of some rows [B].

        Args:
            rows: Their numbers.
            draw: Takes the documents that a batch gets; None for all.

        Raises:
            IndexError: A row number outside ``range(N)``.
            ConfigError: A text that is not UTF-8.
        """
        if len(rows) and (rows.min() < 0 or rows.max() >= self._rows.num_rows):
            raise IndexError(f"rows of '{self._name}' must lie in [0, {self._rows.num_rows})")
        queries, *columns = self._rows.read_lists(rows)
        counts = [np.fromiter(map(len, column), np.int64, len(rows)) for column in columns]
        picks = self._pick(rows, counts[0], sum(counts[1:], np.zeros_like(counts[0])), draw)
        places = iter(picks.places.tolist())
        documents: list[str] = []
        for row, count in enumerate(picks.counts.tolist()):
            of_row = [text for column in columns for text in column[row]]
            documents += [of_row[place] for place in islice(places, count)]
        return ListRows([query for (query,) in queries], documents, picks)

    def picks(self, rows: np.ndarray, draw: Draw | None = None) -> Picks:
        """The documents of some rows, as `read` chooses them, without their texts."""
        return self._pick(rows, *self._counts(rows), draw)

    def document_counts(self, rows: np.ndarray) -> np.ndarray:
        """Documents that each of some rows brings into a batch, int64 [B]; the same in every epoch."""
        positives_B, negatives_B = self.choice.counts(*self._counts(rows))
        return positives_B + negatives_B

    def hashes(self) -> RaggedValues:
        """xxhash64 of all texts of each row (query, positives, negatives), uint64.

        Raises:
            ConfigError: A text that is not UTF-8.
        """
        return self._values(TEXT_HASHES, np.uint64, hash_array, lambda: self._table.validated())

    def lengths(self) -> RaggedValues:
        """Characters of all texts of each row without white space around them, int32."""
        return self._values(TEXT_LENGTHS, np.int32, characters, lambda: self._table.whole)

    def conflict_hashes(self) -> RaggedValues:
        """xxhash64 of each row's query and positives, uint64, which no two rows of a batch should share."""
        offsets = self._stored(
            CONFLICT_OFFSETS, lambda empty: lists.conflict_offsets(self.positive_counts(), empty)
        )
        values = self._stored(
            CONFLICT_HASHES, lambda empty: lists.conflict_values(self.hashes(), offsets, empty)
        )
        return _cut(values, offsets, self._rows.num_rows)

    def positive_counts(self) -> np.ndarray:
        """Positives of each row, int32 [N]."""
        counts = self._stored(
            POSITIVE_COUNTS,
            lambda empty: lists.count_positives(self._table.whole, self._roles, empty),
        )
        return counts[: self._rows.num_rows]

    def scores(self) -> np.ndarray | None:
        """The score of every document of each row, float32 [M], NaN for none; None without scores."""
        if not self._roles.scores:
            return None

        def compute(empty: Allocate) -> np.ndarray:
            table = self._table.whole
            out = empty(int(self._offsets()[-1]) - table.num_rows, np.float32)
            return scores_of_lists(table, self._roles, out)

        num_rows = self._rows.num_rows
        return self._stored(DOCUMENT_SCORES, compute)[: self._offsets()[num_rows] - num_rows]

    def scores_of(self, rows: np.ndarray, picks: Picks) -> np.ndarray | None:
        """Scores of chosen documents of some rows, float32 [M]; None without scores."""
        scores = self.scores()
        if scores is None:
            return None
        first_B = self._offsets()[rows] - rows  # each row before has a query among its texts
        return np.asarray(scores[np.repeat(first_B, picks.counts) + picks.places])

    def num_without_scores(self) -> int:
        """Rows of which some document has no score; 0 without scores."""
        scores = self.scores()
        return (
            0 if scores is None else num_rows_without(scores, self._offsets(), self._rows.num_rows)
        )

    def _values(
        self,
        name: str,
        kind: type,
        value_of: Callable[[pa.Array], np.ndarray],
        table: Callable[[], pa.Table],
    ) -> RaggedValues:
        offsets = self._offsets()

        def compute(empty: Allocate) -> np.ndarray:
            out = empty(int(offsets[-1]), kind)
            return lists.values_of_texts(table(), self._roles, value_of, out)

        return _cut(self._stored(name, compute), offsets, self._rows.num_rows)

    @property
    def _table(self) -> RowTable:
        assert isinstance(self._rows, RowTable), "streamed rows have their arrays in the index"
        return self._rows

    def _offsets(self) -> np.ndarray:
        return self._stored(
            TEXT_OFFSETS, lambda empty: lists.count_texts(self._table.whole, self._roles, empty)
        )

    def _counts(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All positives and negatives of some rows, int64 [B] each."""
        offsets = self._offsets()
        positives_B = self.positive_counts()[rows].astype(np.int64)
        return positives_B, offsets[rows + 1] - offsets[rows] - 1 - positives_B

    def _pick(
        self, rows: np.ndarray, positives_B: np.ndarray, negatives_B: np.ndarray, draw: Draw | None
    ) -> Picks:
        choice, draw = (ListChoice(), Draw(0, 0)) if draw is None else (self.choice, draw)
        return choice.pick(rows, positives_B, negatives_B, source=self._name, draw=draw)


def _cut(values: np.ndarray, offsets: np.ndarray, num_rows: int) -> RaggedValues:
    """The first rows."""
    return RaggedValues(values[: offsets[num_rows]], offsets[: num_rows + 1])
