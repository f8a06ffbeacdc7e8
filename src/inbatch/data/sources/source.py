"""One source of rows: columns with roles, read by row number.

Shape letters: C text columns, N rows, B rows of a batch.

A `Source` holds no row in memory: its table is a memory-mapped Arrow file that all processes of a
machine share, and it pickles as a path. Rows are checked once, at loading (checks.py). Arrays that were
computed ahead (prepared.py) and rows in other places (streamed.py) are read from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, final

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inbatch.data.hashing import hash_column, hash_texts
from inbatch.data.sources.checks import Choice, Place, kept_rows, read_labels
from inbatch.data.sources.columns import Roles, find_roles, resolve_prompts
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.dropped import Dropped
from inbatch.data.sources.indexed import IndexedRows
from inbatch.data.sources.prepared import KEY_HASHES, TEXT_HASHES, TEXT_LENGTHS, Prepared
from inbatch.data.sources.streamed import LABELS, StreamedRows
from inbatch.data.sources.tables import Files
from inbatch.data.sources.texts import TextColumn
from inbatch.data.sources.tokens import TokenStore
from inbatch.errors import ConfigError
from inbatch.files import replaced_file


@final
class Source:
    """Rows of one source: texts by column (query, positive, negatives), labels and keys.

    Args:
        name: The user's name of the source.
        rows: A table, or rows that are read file by file. A table that was shuffled or filtered is
            copied once, in its order.
        roles: The part each column plays.
        files: Where the rows come from, for messages; None for anything but files.
        origin: The name of that place in the report.
        read_as: How its format was read, for people; "" for plain columns.
        prompts: Prompts of this source only, see `columns.resolve_prompts`.
        on_empty: "error" refuses null and empty texts, null labels and null keys; "drop" leaves out
            their rows.
        on_bad_row: "drop" leaves out rows whose label is no number, and those that a reader marked.
        left_out: What was left out before, for the report.
        cache_dir: Folder for the hashes; None keeps them in memory only.
        prepared: The prepared folder that `rows` come from; its rows were checked when it was written.
        field: Configuration key, for messages.

    Raises:
        ConfigError: A column that holds no texts, an empty text, a null key, a label that is not a number.
    """

    def __init__(
        self,
        name: str,
        rows: datasets.Dataset | IndexedRows | StreamedRows,
        roles: Roles,
        *,
        files: Files | None = None,
        origin: str = "memory",
        read_as: str = "",
        prompts: Mapping[str, str] | None = None,
        on_empty: Choice = "error",
        on_bad_row: Choice = "error",
        left_out: tuple[Dropped, ...] = (),
        cache_dir: str | Path | None = None,
        prepared: Prepared | None = None,
        field: str = "data.train",
    ) -> None:
        self.name, self.roles, self.files, self.origin = name, roles, files, origin
        self.read_as = read_as
        self.prompts = dict(prompts or {})
        self.on_empty, self.on_bad_row, self._left_out = on_empty, on_bad_row, left_out
        self.cache_dir, self.field = cache_dir, field
        self.streamed = rows if isinstance(rows, StreamedRows) else None
        self.stored: Prepared | StreamedRows | None = self.streamed or prepared
        resolve_prompts(self.prompts, roles, field=f"{field}.prompts")
        self._hashes: dict[str, np.ndarray] = {}
        self._columns: dict[str, TextColumn] = {}
        self._keep: np.ndarray | None = None  # kept rows of the table; None keeps all
        self._dropped: tuple[Dropped, ...] = ()
        self._dataset: Any = None
        if isinstance(rows, StreamedRows):
            self._labels = rows.array(LABELS) if roles.label and rows.num_rows else None
        else:
            # Columns are read from the table itself, which knows nothing of an indices mapping.
            self._dataset = rows
            if isinstance(rows, datasets.Dataset) and rows._indices is not None:
                self._dataset = rows.flatten_indices()
            place = Place(origin, files, field)
            if prepared is None:
                choices = {"on_empty": on_empty, "on_bad_row": on_bad_row}
                self._keep, self._dropped = kept_rows(self._dataset, roles, place=place, **choices)
            self._labels = read_labels(self._dataset, roles, kept=self._kept, place=place)

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
    def num_rows(self) -> int:
        """Rows N that can be read."""
        if self.streamed is not None:
            return self.streamed.num_rows
        return self._dataset.num_rows if self._keep is None else len(self._keep)

    @property
    def num_dropped(self) -> int:
        """Rows that `on_bad_row` or `on_empty` left out."""
        if self.stored is not None:
            return self.stored.num_dropped
        return self._dataset.num_rows - self.num_rows

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """Everything that was left out, by reason."""
        own = self._dropped if self.stored is None else self.stored.dropped
        return (*self._left_out, *own)

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
        """Changes with the data, the columns and the rows that are kept."""
        if self.streamed is not None:
            return self.streamed.fingerprint
        key = f"{self._dataset._fingerprint}:{self.roles.used}:{self.on_empty}:{self.on_bad_row}"
        return f"{int(hash_texts([key])[0]):016x}"

    def read(self, rows: np.ndarray) -> tuple[list[list[str]], np.ndarray | None]:
        """Texts of each column, and float32 labels [B], of the rows with these numbers.

        Raises:
            IndexError: A row number outside ``range(num_rows)``.
            ConfigError: A text that is not UTF-8.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num_rows):
            raise IndexError(f"rows of '{self.name}' must lie in [0, {self.num_rows})")
        if self.streamed is not None:
            return self.streamed.read(rows), self.labels(rows)
        table_rows = rows if self._keep is None else self._keep[rows]
        try:
            texts = [self._texts(name).read(table_rows) for name in self.columns]
        except UnicodeDecodeError as error:
            raise self._not_utf8() from error
        return texts, self.labels(rows)

    def table(self, start: int, stop: int) -> pa.Table:
        """Texts, label and key of the rows ``start .. stop - 1``."""
        table = self._dataset.data.table.select(list(self.roles.used)).replace_schema_metadata()
        if self._keep is None or stop <= start:
            return table.slice(start, stop - start)
        rows = self._keep[start:stop]
        first = int(rows[0])
        return table.slice(first, int(rows[-1]) + 1 - first).take(pa.array(rows - first))

    def labels(self, rows: np.ndarray | slice = np.s_[:]) -> np.ndarray | None:
        """Labels of some rows [B] or of all [N], float32; None without labels."""
        return None if self._labels is None else self._labels[rows]

    def text_hashes(self) -> np.ndarray:
        """xxhash64 of every text, uint64 [C, N]; 8 C N bytes, memory-mapped with a `cache_dir`.

        Raises:
            ConfigError: A text that is not UTF-8.
        """
        return self._stored(TEXT_HASHES, self._hash_texts)

    def keys(self) -> np.ndarray | None:
        """xxhash64 of every row's key as a text, uint64 [N]; None where the rows have no key.

        A number and the text that it reads as are one key, so that csv and parquet files agree.
        """
        return None if self.roles.key is None else self._stored(KEY_HASHES, self._hash_keys)

    def text_lengths(self) -> np.ndarray:
        """Characters of every text without white space around it, int32 [C, N]."""
        if self.stored is not None:
            return self.stored.array(TEXT_LENGTHS)[:, : self.num_rows]
        arrays = [
            pc.utf8_length(pc.utf8_trim_whitespace(self._filled(name))).to_numpy()
            for name in self.columns
        ]
        return self._kept(np.stack(arrays).astype(np.int32, copy=False))

    def _column(self, name: str) -> pa.ChunkedArray:
        return self._dataset.data.column(name)

    def _filled(self, name: str) -> pa.ChunkedArray:
        """The column without the nulls of dropped rows."""
        column = self._column(name)
        return pc.fill_null(column, "") if column.null_count else column

    def _kept(self, values: np.ndarray) -> np.ndarray:
        return values if self._keep is None else values[..., self._keep]

    def _texts(self, name: str) -> TextColumn:
        if name not in self._columns:
            self._columns[name] = TextColumn(self._column(name))
        return self._columns[name]

    def _hash_texts(self) -> np.ndarray:
        try:
            for name in self.columns:
                self._column(name).validate(full=True)
        except pa.ArrowInvalid as error:
            raise self._not_utf8() from error
        return self._kept(np.stack([hash_column(self._filled(name)) for name in self.columns]))

    def _hash_keys(self) -> np.ndarray:
        column = self._column(cast(str, self.roles.key))
        text = column.type if pa.types.is_large_string(column.type) else pa.string()
        return self._kept(hash_column(pc.fill_null(pc.cast(column, text), "")))

    def _stored(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """An array that is computed once, and kept in a file where there is a `cache_dir`."""
        if name not in self._hashes and self.stored is not None:
            self._hashes[name] = self.stored.array(name)[..., : self.num_rows]
        elif name not in self._hashes:
            self._hashes[name] = (
                compute() if self.cache_dir is None else self._cached(name, compute)
            )
        return self._hashes[name]

    def _cached(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        path = Path(cast(str, self.cache_dir)) / f"{name}-{self.fingerprint}.npy"
        if not path.exists():
            values = compute()  # several ranks may do so at once; they write the same
            with replaced_file(path) as file:
                np.save(file, values)
        return np.load(path, mmap_mode="r")

    def _not_utf8(self) -> ConfigError:
        """The error for texts that are not UTF-8; those of files were checked when they were read."""
        return ConfigError(path_key(self.field), "is not UTF-8", "convert it", value=self.origin)

    def __getstate__(self) -> dict[str, Any]:
        """Without the chunk handles and hashes: a DataLoader worker maps the file again."""
        return self.__dict__ | {"_columns": {}, "_hashes": {}}


def label_range(source: Source) -> tuple[float, float]:
    """Smallest and largest label of a source that has labels, over all rows."""
    labels = source.labels()
    assert labels is not None, source.name
    return float(labels.min()), float(labels.max())


def check_stored_guide(source: Source) -> None:
    """Check that embeddings of a source can be stored in reasonable time.

    Raises:
        ConfigError: Its rows are read file by file, and a store reads them in another order.
    """
    if source.streamed is not None:
        raise ConfigError(
            "guide.mode",
            f"reads the rows of source '{source.name}' in another order than its files hold "
            f"them, and {source.field}.streaming=true would fetch each file again and again",
            "set guide.mode=live, or prepare the data",
            value="stored",
        )
