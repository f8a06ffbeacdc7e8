"""Named sources of rows: files or hub data sets -> columns with roles, read by row number.

Shape letters: C text columns, N rows, B rows of a batch.

A `Source` holds no row in memory: its table is a memory-mapped Arrow file that all processes of a
machine share, and it pickles as a path. Rows are checked once, at loading, so that no null text or
label can turn up in the middle of a run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, final

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inbatch.data.columns import Roles, find_roles, resolve_prompts
from inbatch.data.files import (
    LOAD_ERRORS,
    Files,
    load_files,
    locate_row,
    peek_columns,
    resolve_files,
)
from inbatch.data.hashing import hash_column, hash_texts
from inbatch.data.spec import SourceSpec, parse_spec
from inbatch.errors import ConfigError


@final
class Source:
    """Rows of one source: texts by column (query, positive, negatives) and labels.

    Args:
        name: The user's name of the source.
        dataset: The rows. One that was shuffled or filtered is copied once, in its order.
        roles: The part each column plays.
        files: Where the rows come from, for messages; None for anything but files.
        origin: What to call that place in the report.
        prompts: Prompts of this source alone, see `columns.resolve_prompts`.
        on_empty: "error" refuses null texts and keeps empty ones (the report counts them); "drop"
            leaves out rows with a null or empty text, or a null label.
        cache_dir: Folder for the hashes; None keeps them in memory only.
        field: Configuration key, for messages.

    Raises:
        ConfigError: A column that holds no texts, a null text, a label that is no number.
    """

    def __init__(
        self,
        name: str,
        dataset: datasets.Dataset,
        roles: Roles,
        *,
        files: Files | None = None,
        origin: str = "memory",
        prompts: Mapping[str, str] | None = None,
        on_empty: Literal["error", "drop"] = "error",
        cache_dir: str | Path | None = None,
        field: str = "data.train",
    ) -> None:
        self.name, self.roles, self.files, self.origin = name, roles, files, origin
        self.prompts = dict(prompts or {})
        self.on_empty, self.cache_dir, self.field = on_empty, cache_dir, field
        resolve_prompts(self.prompts, roles, field=f"{field}.prompts")
        # Columns are read from the table itself, which knows nothing of an indices mapping.
        self._dataset = dataset if dataset._indices is None else dataset.flatten_indices()
        self._keep: np.ndarray | None = None  # kept rows of the table; None keeps all
        self._hashes: np.ndarray | None = None
        self._chunks: dict[str, tuple[list[pa.Array], np.ndarray]] = {}
        self._check_texts()
        self._labels = self._read_labels()
        if self.num_rows == 0:
            raise ConfigError(f"{field}: source '{name}' ({origin}) holds no rows.")

    @classmethod
    def from_columns(
        cls, name: str, columns: Mapping[str, Sequence[object]], **options: Any
    ) -> Source:
        """A source of rows in memory; `columns` maps column names to values."""
        dataset = datasets.Dataset.from_dict(dict(columns))
        return cls(name, dataset, find_roles(list(columns), field=name), **options)

    @property
    def columns(self) -> tuple[str, ...]:
        """Text columns in the order query, positive, negatives."""
        return self.roles.texts

    @property
    def has_labels(self) -> bool:
        """Whether the rows carry a label."""
        return self.roles.label is not None

    @property
    def num_rows(self) -> int:
        """Rows N that can be read."""
        return self._dataset.num_rows if self._keep is None else len(self._keep)

    @property
    def num_dropped(self) -> int:
        """Rows that `on_empty: drop` left out."""
        return self._dataset.num_rows - self.num_rows

    @property
    def fingerprint(self) -> str:
        """Changes with the data, the columns and the rows that are kept."""
        key = f"{self._dataset._fingerprint}:{self.roles.used}:{self.on_empty}"
        return f"{int(hash_texts([key])[0]):016x}"

    def read(self, rows: np.ndarray) -> tuple[list[list[str]], np.ndarray | None]:
        """Texts of each column, and float32 labels [B], of the rows with these numbers.

        Raises:
            IndexError: A row number outside ``range(num_rows)``.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num_rows):
            raise IndexError(f"rows of '{self.name}' must lie in [0, {self.num_rows})")
        table_rows = rows if self._keep is None else self._keep[rows]
        texts = [self._gather(name, table_rows) for name in self.columns]
        return texts, None if self._labels is None else self._labels[rows]

    def labels(self) -> np.ndarray | None:
        """Labels of all rows, float32 [N]."""
        return self._labels

    def text_hashes(self) -> np.ndarray:
        """xxhash64 of every text, uint64 [C, N]; 8 C N bytes, memory-mapped with a `cache_dir`."""
        if self._hashes is None:
            self._hashes = self._cached_hashes() if self.cache_dir else self._compute_hashes()
        return self._hashes

    def text_lengths(self) -> np.ndarray:
        """Characters of every text, int32 [C, N]."""
        arrays = [pc.utf8_length(self._filled(name)).to_numpy() for name in self.columns]
        return self._kept(np.stack(arrays).astype(np.int32, copy=False))

    def _column(self, name: str) -> pa.ChunkedArray:
        return self._dataset.data.column(name)

    def _filled(self, name: str) -> pa.ChunkedArray:
        """The column without the nulls of dropped rows."""
        column = self._column(name)
        return pc.fill_null(column, "") if column.null_count else column

    def _kept(self, values: np.ndarray) -> np.ndarray:
        return values if self._keep is None else values[..., self._keep]

    def _gather(self, name: str, rows: np.ndarray) -> list[str]:
        # ChunkedArray.take joins all chunks first, O(N) for each batch; a scalar takes about 1 us.
        if name not in self._chunks:
            chunks = self._column(name).chunks
            self._chunks[name] = (chunks, np.cumsum([0, *map(len, chunks)]))
        chunks, starts = self._chunks[name]
        chunk_numbers = np.searchsorted(starts, rows, side="right") - 1
        places = (rows - starts[chunk_numbers]).tolist()
        return [chunks[k][i].as_py() for k, i in zip(chunk_numbers.tolist(), places)]

    def _compute_hashes(self) -> np.ndarray:
        return self._kept(np.stack([hash_column(self._filled(name)) for name in self.columns]))

    def _cached_hashes(self) -> np.ndarray:
        path = Path(cast(str, self.cache_dir)) / f"text_hashes-{self.fingerprint}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Several ranks may write at once: each its own file, and the last rename wins.
            part = path.with_name(f"{path.stem}.{os.getpid()}.part.npy")
            np.save(part, self._compute_hashes())
            part.replace(path)
        return np.load(path, mmap_mode="r")

    def _check_texts(self) -> None:
        keep = np.ones(self._dataset.num_rows, dtype=bool)
        for name in self.columns:
            column = self._column(name)
            if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
                raise ConfigError(
                    f"{self.field}: column '{name}' holds {column.type}, not texts; "
                    f"choose other columns in {self.field}.columns or store it as strings."
                )
            if self.on_empty == "drop":
                keep &= pc.fill_null(pc.greater(pc.binary_length(column), 0), False).to_numpy()
            elif column.null_count:
                self._refuse("an empty (null) text", name, _first(pc.is_null(column).to_numpy()))
        if self.on_empty == "drop" and self.roles.label is not None:
            keep &= pc.is_valid(self._column(self.roles.label)).to_numpy()
        if not keep.all():
            self._keep = np.flatnonzero(keep)

    def _read_labels(self) -> np.ndarray | None:
        if self.roles.label is None:
            return None
        column = self._column(self.roles.label)
        try:
            values = pc.cast(column, pa.float32(), safe=False).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ConfigError(
                f"{self.field}: label column '{self.roles.label}' of {self.origin} holds "
                f"{column.type} values that are no numbers ({error}); mend it or name another one "
                f"in {self.field}.columns."
            ) from error
        missing = np.isnan(values)
        if self._kept(missing).any():
            self._refuse("no label (null or NaN)", self.roles.label, _first(missing))
        return self._kept(values)

    def _refuse(self, what: str, column: str, row: int) -> None:
        place, row = (self.origin, row) if self.files is None else locate_row(self.files, row)
        raise ConfigError(
            f"{self.field}: {place} has {what} in column '{column}', row {row} (counted from 0); "
            f"fill it or set {self.field}.on_empty=drop."
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the chunk handles and hashes: a DataLoader worker maps the file again."""
        return self.__dict__ | {"_chunks": {}, "_hashes": None}


def load_sources(
    spec: str | Sequence[str] | Mapping[str, Any],
    *,
    field: str = "data.train",
    cache_dir: str | None = None,
) -> list[Source]:
    """Load every source of a configuration entry, in its order.

    Args:
        spec: ``{name: SourceSpec keys}``; a bare path (or list) in place of the keys, or in
            place of the whole, which then is one source named as the last part of `field`.
        field: Configuration key of `spec`, for messages.
        cache_dir: Where Arrow copies of the files and text hashes are kept. None: copies where
            `datasets` keeps them, hashes in memory only.

    Raises:
        ConfigError: Anything about keys, files, columns or rows that cannot be used.
    """
    if not isinstance(spec, Mapping):
        spec = {field.rpartition(".")[2]: spec}
    if not spec:
        raise ConfigError(f"{field} names no source; give at least one path.")
    return [
        _load_source(str(name), value, field=f"{field}.{name}", cache_dir=cache_dir)
        for name, value in spec.items()
    ]


def _load_source(name: str, value: Any, *, field: str, cache_dir: str | None) -> Source:
    spec = parse_spec(value, field=field)
    options: dict[str, Any] = {"prompts": spec.prompts, "on_empty": spec.on_empty, "field": field}
    if spec.path is not None:
        files = resolve_files(spec.path, field=field)
        roles = find_roles(peek_columns(files, field=field), mapping=spec.columns, field=field)
        dataset = load_files(files, roles, cache_dir=cache_dir, field=field)
        options |= {"files": files, "origin": str(spec.path)}
    else:
        dataset = _load_hub(spec, field=field, cache_dir=cache_dir)
        roles = find_roles(dataset.column_names, mapping=spec.columns, field=field)
        dataset = dataset.select_columns(list(roles.used))
        options |= {"origin": f"hub {spec.hub}, split {spec.split}"}
    if spec.limit is not None:
        dataset = dataset.select(range(min(spec.limit, dataset.num_rows)))
    return Source(name, dataset, roles, cache_dir=cache_dir, **options)


def _load_hub(spec: SourceSpec, *, field: str, cache_dir: str | None) -> datasets.Dataset:
    where = {"split": spec.split, "revision": spec.revision, "cache_dir": cache_dir}
    try:
        return datasets.load_dataset(spec.hub, spec.subset, **where)
    except LOAD_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{field}.hub={spec.hub} (subset {spec.subset}, split {spec.split}) cannot be loaded "
            f"({reason}); check the name and the connection, or give a path."
        ) from error


def _first(mask: np.ndarray) -> int:
    return int(np.flatnonzero(mask)[0])
