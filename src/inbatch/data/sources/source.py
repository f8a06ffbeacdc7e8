"""One source of rows: columns with roles, read by row number.

Shape letters: C text columns, N rows, B rows of a batch.

A `Source` holds no row in memory: its table is a memory-mapped Arrow file that all processes of a
machine share, and it pickles as a path. Rows are checked once, at loading (checks.py). Arrays that were
computed ahead (prepared.py) and rows in other places (streamed.py) are read from there. Rows with lists of
documents are read through `Source.ragged` (ragged_rows.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import datasets
import numpy as np
import pyarrow as pa

from inbatch.data.hashing import hash_texts
from inbatch.data.sources.cached import Allocate, cached_array
from inbatch.data.sources.checked import checked
from inbatch.data.sources.checks import Choice, Place, read_labels
from inbatch.data.sources.choice import ListChoice
from inbatch.data.sources.columns import Roles, find_roles, resolve_prompts
from inbatch.data.sources.dropped import Dropped, Intake, num_rows
from inbatch.data.sources.indexed import IndexedRows
from inbatch.data.sources.lists import of_columns
from inbatch.data.sources.mixed_columns import count_texts, say_texts
from inbatch.data.sources.prepared import (
    DOCUMENT_SCORES,
    KEY_HASHES,
    TEXT_HASHES,
    TEXT_LENGTHS,
    Prepared,
)
from inbatch.data.sources.ragged_rows import RaggedRows
from inbatch.data.sources.streamed import LABELS, StreamedRows
from inbatch.data.sources.table import RowTable
from inbatch.data.sources.tables import Files
from inbatch.data.sources.tokens import TokenStore
from inbatch.data.sources.views import ColumnsOfLists, ListsOfColumns, View


@final
class Source:
    """Rows of one source: texts by column (query, positive, negatives), labels and keys.

    Args:
        name: The user's name of the source.
        rows: A table, rows that are read file by file, or those of another source in another form. A table
            that was shuffled or filtered is copied once, in its order.
        roles: The part each column plays.
        files: Where the rows come from, for messages; None for anything but files.
        origin: The name of that place in the report.
        read_as: How its format was read, for people; "" for plain columns.
        prompts: Prompts of this source only, see `columns.resolve_prompts`.
        on_empty: "error" refuses null and empty texts, null labels and null keys; "drop" leaves out
            their rows; of lists such texts, and rows that have no positive then.
        on_bad_row: "drop" leaves out rows whose label is no number, and those that a reader marked.
        left_out, intake: What a format left out, and what it read where that is no rows.
        choice: Which documents of its lists a row brings into a batch.
        cache_dir: Folder for the hashes; None keeps them in memory only.
        prepared: The prepared folder that `rows` come from; its rows were checked when it was written.
        field: Configuration key, for messages.

    Raises:
        ConfigError: A column that holds no texts, an empty text, a null key, a label that is not a number; of
            rows with lists, what `list_checks.checked_lists` says.
    """

    def __init__(
        self,
        name: str,
        rows: datasets.Dataset | IndexedRows | StreamedRows | ColumnsOfLists | ListsOfColumns,
        roles: Roles,
        *,
        files: Files | None = None,
        origin: str = "memory",
        read_as: str = "",
        prompts: Mapping[str, str] | None = None,
        on_empty: Choice = "error",
        on_bad_row: Choice = "error",
        left_out: tuple[Dropped, ...] = (),
        intake: Intake | None = None,
        choice: ListChoice | None = None,
        cache_dir: str | Path | None = None,
        prepared: Prepared | None = None,
        field: str = "data.train",
    ) -> None:
        self.name, self.roles, self.files, self.origin = name, roles, files, origin
        self.prompts, self.choice = dict(prompts or {}), choice or ListChoice()
        self.on_empty, self.on_bad_row = on_empty, on_bad_row
        self.cache_dir, self.field, self.read_as = cache_dir, field, read_as
        self.stored: Prepared | StreamedRows | View | None = prepared
        self.streamed = rows if isinstance(rows, StreamedRows) else None
        self.is_prepared = prepared is not None
        if isinstance(rows, StreamedRows | View):
            self.stored = rows
        if isinstance(rows, View):
            self.streamed, self.is_prepared = rows.source.streamed, rows.source.is_prepared
        self.num_dropped_texts = self.num_single_texts = 0  # texts read as lists of one
        self.dropped: tuple[Dropped, ...] = ()  # by reason
        if self.stored is not None:
            self.num_single_texts = self.stored.num_single_texts
            self.dropped = self.stored.dropped
            self.num_dropped_texts = self.stored.num_dropped_texts
        resolve_prompts(self.prompts, roles, field=f"{field}.prompts")
        self._hashes: dict[str, np.ndarray] = {}
        self._rows: RowTable | StreamedRows | ColumnsOfLists | ListsOfColumns
        if isinstance(rows, StreamedRows | ColumnsOfLists | ListsOfColumns):
            self._rows = rows
            if rows.is_ragged:
                self.roles = replace(roles, lists=roles.texts[1:])
            elif isinstance(rows, StreamedRows):  # views have a score for each text
                self.roles = of_columns(roles)
            self._labels = rows.array(LABELS) if roles.label and rows.num_rows else None
        else:
            # Columns are read from the table itself, which knows nothing of an indices mapping.
            dataset = rows
            if isinstance(rows, datasets.Dataset) and rows._indices is not None:
                dataset = rows.flatten_indices()
            place = Place(origin, files, field)
            keep = None
            if prepared is None:
                self.num_single_texts = count_texts(dataset.data.table, roles.texts)
                found = checked(
                    dataset, roles, place=place, on_empty=on_empty, on_bad_row=on_bad_row
                )
                dataset, self.roles, keep, self.dropped, self.num_dropped_texts = found
            self._rows = RowTable(dataset, self.roles, keep, place)
            self._labels = read_labels(dataset, self.roles, kept=self._rows.kept, place=place)
        if self.num_single_texts and not isinstance(rows, View):
            self.read_as = "; ".join(filter(None, (read_as, say_texts(self.num_single_texts))))
        self.dropped += left_out
        made_of = intake if prepared is None else prepared.intake
        self.num_dropped = 0 if made_of else num_rows(self.dropped)  # rows
        read = made_of or Intake.of_rows(self.num_rows, self.num_dropped)
        self.intake = read.holding(self.num_rows)
        self.ragged: RaggedRows | None = None
        if self.roles.lists:
            assert not isinstance(self._rows, ColumnsOfLists)
            self.ragged = RaggedRows(name, self._rows, self.roles, self.choice, self._stored)

    @classmethod
    def from_columns(
        cls,
        name: str,
        columns: Mapping[str, Sequence[object]],
        *,
        mapping: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Source:
        """A source of rows in memory; `columns` maps column names to values, `mapping` as in `find_roles`."""
        dataset = datasets.Dataset.from_dict(dict(columns))
        roles = find_roles(list(columns), mapping=mapping, field=name)
        return cls(name, dataset, roles, **options)

    def column_prompts(
        self, prompts: Mapping[str, str] | None, *, field: str = "prompts"
    ) -> tuple[str, ...]:
        """The prompt of each text column: this source's own where it has one, else of `prompts`."""
        return resolve_prompts({**(prompts or {}), **self.prompts}, self.roles, field=field)

    @property
    def columns(self) -> tuple[str, ...]:
        """Text columns in the order query, positive, negatives."""
        return self.roles.texts

    @property
    def has_labels(self) -> bool:
        """True if the rows carry a label."""
        return self.roles.label is not None

    @property
    def is_ragged(self) -> bool:
        """True if rows have lists of positives or negatives, which are read through `ragged`."""
        return self.ragged is not None

    @property
    def num_rows(self) -> int:
        """Rows N that can be read."""
        return self._rows.num_rows

    @property
    def num_near_rows(self) -> int:
        """Leading rows that may be looked at in any order at little cost; normally all."""
        return self.num_rows if self.streamed is None else self.streamed.num_near_rows

    @property
    def tokens(self) -> TokenStore | None:
        """Token ids of all texts, where they were stored."""
        return None if self.stored is None else self.stored.tokens

    @property
    def fingerprint(self) -> str:
        """Changes with the data, the roles of the columns and the rows that are kept."""
        if not isinstance(self._rows, RowTable):
            return self._rows.fingerprint
        key = f"{self._rows.fingerprint}:{self.roles.signature}:{self.on_empty}:{self.on_bad_row}"
        return f"{int(hash_texts([key])[0]):016x}"

    def read(self, rows: np.ndarray) -> tuple[list[list[str]], np.ndarray | None]:
        """Texts of each column, and float32 labels [B], of the rows with these numbers.

        Raises:
            TypeError: The rows have lists.
            IndexError: A row number outside ``range(num_rows)``.
            ConfigError: A text that is not UTF-8.
        """
        self._refuse_lists()
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num_rows):
            raise IndexError(f"rows of '{self.name}' must lie in [0, {self.num_rows})")
        assert not isinstance(self._rows, ListsOfColumns)
        return self._rows.read(rows), self.labels(rows)

    def _refuse_lists(self) -> None:
        if self.is_ragged:
            raise TypeError(f"rows of '{self.name}' have lists, which are read through 'ragged'")

    def table(self, start: int, stop: int) -> pa.Table:
        """Texts, label, key and scores of the rows ``start .. stop - 1``."""
        return self._table.slice(start, stop)

    def labels(self, rows: np.ndarray | slice = np.s_[:]) -> np.ndarray | None:
        """Labels of some rows [B] or of all [N], float32; None without labels."""
        return None if self._labels is None else self._labels[rows]

    def text_hashes(self) -> np.ndarray:
        """xxhash64 of every text, uint64 [C, N]; 8 C N bytes, memory-mapped with a `cache_dir`.

        Raises:
            TypeError: The rows have lists.
            ConfigError: A text that is not UTF-8.
        """
        self._refuse_lists()
        return self._stored(TEXT_HASHES, lambda _: self._table.hash_texts())[:, : self.num_rows]

    def keys(self) -> np.ndarray | None:
        """xxhash64 of every row's key as a text, uint64 [N]; None where the rows have no key.

        A number and the text that it reads as are one key, so that csv and parquet files agree.
        """
        if self.roles.key is None:
            return None
        return self._stored(KEY_HASHES, lambda _: self._table.hash_keys())[: self.num_rows]

    def text_lengths(self) -> np.ndarray:
        """Characters of every text without white space around it, int32 [C, N].

        Raises:
            TypeError: The rows have lists.
        """
        self._refuse_lists()
        if self.stored is not None:
            return self.stored.array(TEXT_LENGTHS)[:, : self.num_rows]
        return self._table.lengths()

    def scores(self) -> np.ndarray | None:
        """The score of every document, float32 [C - 1, N], of rows with lists flat; NaN: none.

        None where the rows have no column of scores.
        """
        if self.ragged is not None or not self.roles.scores:
            return None if self.ragged is None else self.ragged.scores()
        return self._stored(DOCUMENT_SCORES, lambda _: self._table.scores())[:, : self.num_rows]

    def num_without_scores(self) -> int:
        """Rows of which some document has no score; 0 where the rows have no column of scores."""
        if self.ragged is not None:
            return self.ragged.num_without_scores()
        scores = self.scores()
        return 0 if scores is None else int(np.isnan(scores).any(axis=0).sum())

    @property
    def _table(self) -> RowTable:
        assert isinstance(self._rows, RowTable), "streamed rows have their arrays in the index"
        return self._rows

    def _stored(self, name: str, compute: Callable[[Allocate], np.ndarray]) -> np.ndarray:
        """An array that is computed once, and kept in a file where there is a `cache_dir`.

        One that was computed ahead goes on behind a `limit` of rows.
        """
        if name not in self._hashes and self.stored is not None:
            self._hashes[name] = self.stored.array(name)
        elif name not in self._hashes:
            path = None
            if self.cache_dir is not None:
                path = Path(self.cache_dir) / f"{name}-{self.fingerprint}.npy"
            self._hashes[name] = cached_array(path, compute)
        return self._hashes[name]

    def __getstate__(self) -> dict[str, Any]:
        """Without the hashes: a DataLoader worker maps their files again."""
        return self.__dict__ | {"_hashes": {}}
