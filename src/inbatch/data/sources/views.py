"""The rows of one source in another form: columns of texts as lists, and lists as columns of texts.

Shape letters: C text columns, N rows, B rows of a batch.

A view copies no text. It has what `Source` uses of rows whose arrays were computed ahead (streamed.py), made
from the arrays of the source that it shows. So batches of several sources may hold rows with lists beside
others, and losses that take no lists may train on lists that are all of one length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Protocol, final

import numpy as np

from inbatch.data.sources.cached import Allocate, cached_array
from inbatch.data.sources.choice import Draw, ListChoice
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.dropped import Dropped
from inbatch.data.sources.prepared import (
    DOCUMENT_SCORES,
    KEY_HASHES,
    TEXT_HASHES,
    TEXT_LENGTHS,
)
from inbatch.data.sources.ragged_arrays import arrays_of_columns
from inbatch.data.sources.ragged_rows import RaggedRows
from inbatch.data.sources.streamed import LABELS, StreamedRows

_NO_DRAW = Draw(0, 0)  # of a choice that draws nothing


class Viewed(Protocol):
    """The source that a view shows."""

    roles: Roles
    streamed: StreamedRows | None
    dropped: tuple[Dropped, ...]
    num_dropped_texts: int
    num_single_texts: int
    is_prepared: bool
    cache_dir: str | Path | None

    @property
    def num_rows(self) -> int:
        """N."""

    @property
    def num_near_rows(self) -> int:
        """Leading rows that may be looked at in any order."""

    @property
    def fingerprint(self) -> str:
        """Changes with the data."""

    def read(self, rows: np.ndarray) -> tuple[list[list[str]], np.ndarray | None]:
        """Texts by column, and labels."""

    def text_hashes(self) -> np.ndarray:
        """Of rows without lists, [C, N]."""

    def text_lengths(self) -> np.ndarray:
        """Likewise."""

    def scores(self) -> np.ndarray | None:
        """Of each document of rows without lists, [C - 1, N]."""

    def keys(self) -> np.ndarray | None:
        """Of each row, [N]."""

    def labels(self) -> np.ndarray | None:
        """Of each row, [N]."""


class View(ABC):
    """Rows of a source in another form.

    Args:
        source: that is shown.
        form: part of the names of its arrays.
    """

    is_ragged: bool
    tokens = (
        None  # stored ones are in the order of the other form: texts are tokenized as they are read
    )

    def __init__(self, source: Viewed, form: str) -> None:
        self.source = source
        self.num_rows, self.num_near_rows = source.num_rows, source.num_near_rows
        self.dropped, self.num_dropped_texts = source.dropped, source.num_dropped_texts
        self.num_single_texts = source.num_single_texts
        self.fingerprint = f"{source.fingerprint}-{form}"

    def array(self, name: str) -> np.ndarray:
        """An array of all rows, as of `StreamedRows`; computed once where there is a folder for it."""
        given = {LABELS: self.source.labels, KEY_HASHES: self.source.keys}
        if name in given:
            array = given[name]()
            assert array is not None, name
            return array
        folder = self.source.cache_dir
        path = None if folder is None else Path(folder) / f"{name}-{self.fingerprint}.npy"
        return cached_array(path, partial(self._compute, name))

    @abstractmethod
    def _compute(self, name: str, empty: Allocate) -> np.ndarray:
        """The array."""


@final
class ListsOfColumns(View):
    """Rows whose texts stand in columns of their own, as lists: one positive and its negatives."""

    is_ragged = True

    def __init__(self, source: Viewed) -> None:
        super().__init__(source, "lists")

    def _compute(self, name: str, empty: Allocate) -> np.ndarray:
        arrays = {TEXT_HASHES: self.source.text_hashes()}
        if name == TEXT_LENGTHS:
            arrays[name] = self.source.text_lengths()
        if name == DOCUMENT_SCORES:
            scores = self.source.scores()
            assert scores is not None, "views of rows without scores have none"
            arrays[name] = scores
        return arrays_of_columns(name, arrays, empty)

    def read_lists(self, rows: np.ndarray) -> list[list[list[str]]]:
        """Lists of one text, by column and row of some rows [B]."""
        return [[[text] for text in column] for column in self.source.read(rows)[0]]


@final
class ColumnsOfLists(View):
    """Rows with lists: the first positive and so many first negatives of each, in a column for each text.

    Args:
        source: that is shown.
        ragged: its lists.
        num_negatives: that each row has at least.
    """

    is_ragged = False

    def __init__(self, source: Viewed, ragged: RaggedRows, num_negatives: int) -> None:
        super().__init__(source, f"columns-{2 + num_negatives}")
        # A choice that draws all texts of a list gives them in another order than the arrays have them.
        self._ragged = ragged.chosen(ListChoice(positives="first", max_negatives=num_negatives))
        self._num_documents = 1 + num_negatives

    def _compute(self, name: str, empty: Allocate) -> np.ndarray:
        if name == DOCUMENT_SCORES:
            return self._scores()
        texts = self._ragged.hashes() if name == TEXT_HASHES else self._ragged.lengths()
        out_CN = np.empty((1 + self._num_documents, self.num_rows), texts.values.dtype)
        for column, values_N in enumerate(out_CN):
            values_N[:] = texts.values[self._places(column)]
        return out_CN

    def _scores(self) -> np.ndarray:
        """Of the documents of each column, [C - 1, N]; they stand as the texts do, without queries."""
        scores = self._ragged.scores()
        assert scores is not None, "views of rows without scores have none"
        queries_N = np.arange(1, self.num_rows + 1)
        columns = range(1, 1 + self._num_documents)
        return np.stack([scores[self._places(column) - queries_N] for column in columns])

    def _places(self, column: int) -> np.ndarray:
        """Of its texts among those of all rows, [N]."""
        behind = column if column < 2 else column - 1 + self._ragged.positive_counts()
        places: np.ndarray = np.asarray(self._ragged.hashes().offsets[:-1]) + behind
        return places

    def read(self, rows: np.ndarray) -> list[list[str]]:
        """Texts by column, of some rows [B]."""
        found = self._ragged.read(rows, _NO_DRAW)
        width = self._num_documents
        return [found.queries, *(found.documents[place::width] for place in range(width))]
