"""Streamed sources: rows stay where they are, with a local index of all rows and a few files at a time.

Shape letters: C text columns, N rows.

For data that are too large for a local copy, or lie in files without random access. One pass over the
files makes the index: hashes of texts and keys, lengths and labels, some 12 C + 12 bytes a row. Every
sampler plans on it as on any other source, so batches, number of steps and exact resume are the same
thing; only the order is one of few files at a time (`permutation.FilesRange`). Rows are read through
copies of whole files, kept for all processes of the machine, of which the oldest are deleted. So a run
that resumes anywhere fetches the files of one window, whatever its position.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, final

import fsspec
import numpy as np
import pyarrow as pa
import xxhash
from datasets import Dataset

from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.dropped import Dropped, from_json, merge
from inbatch.data.sources.prepared import (
    DOCUMENT_SCORES,
    TEXT_HASHES,
    TEXT_LENGTHS,
    TEXT_OFFSETS,
)
from inbatch.data.sources.ragged_arrays import NAMES, arrays_of_columns, join
from inbatch.data.sources.tables import Files
from inbatch.data.sources.texts import TextColumn
from inbatch.errors import ConfigError
from inbatch.files import new_folder, replaced_file, write_json

T = TypeVar("T")

LABELS, DROPPED_TEXTS, SINGLE_TEXTS = "labels", "dropped_texts", "single_texts"
_NUM_ROWS = "num_rows"
_DROPPED = "dropped.json"


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """The contents of one file: the rows, and index arrays [..., n] by name."""

    table: pa.Table
    arrays: dict[str, np.ndarray]
    dropped: tuple[Dropped, ...] = ()


Decode = Callable[[Files, str], DecodedFile]  # one file, folder for temporary copies


@final
class StreamedRows:
    """The rows of many files, and their index.

    Args:
        files: where the rows are.
        roles: which columns are read.
        decode: reads one file.
        folder: for the index and the copies.
        buffer_files: files whose rows are mixed; at most twice as many are kept as copies.
        variant: what else decides which rows a file gives.
        field: configuration key, for messages.
    """

    tokens = None  # texts that are read file by file are tokenized as they are read

    def __init__(
        self,
        files: Files,
        roles: Roles,
        decode: Decode,
        *,
        folder: Path,
        buffer_files: int,
        variant: str,
        field: str,
    ) -> None:
        self.buffer_files = buffer_files
        self._files, self._roles, self._decode, self._field = files, roles, decode, field
        self.fingerprint = _fingerprint(files, roles, variant)
        self._folder = folder / f"stream-{self.fingerprint}"
        self._open: dict[int, list[TextColumn]] = {}

    @cached_property
    def _num_rows(self) -> np.ndarray:
        """Rows of each file [F]; makes the index where there is none."""
        numbers = range(len(self._files.paths))
        # Each process begins elsewhere, so that several share the work.
        for number in np.roll(numbers, -(os.getpid() * 7919) % len(numbers)).tolist():
            if not self._index(number).exists():
                self._add_to_index(number)
        return np.stack([np.load(self._index(number) / f"{_NUM_ROWS}.npy") for number in numbers])

    @cached_property
    def _filled(self) -> list[int]:
        """Numbers of the files that hold a row."""
        return np.flatnonzero(self._num_rows).tolist()

    @cached_property
    def file_rows(self) -> tuple[int, ...]:
        """Rows of each file that holds any."""
        return tuple(self._num_rows[self._filled].tolist())

    @cached_property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was left out, by reason."""
        numbers = range(len(self._num_rows))
        texts = [(self._index(number) / _DROPPED).read_text("utf-8") for number in numbers]
        return merge(from_json(json.loads(text)) for text in texts)

    @property
    def num_dropped_texts(self) -> int:
        """Texts that were left out of the lists of other rows."""
        return sum(int(np.load(path).sum()) for path in self._paths(DROPPED_TEXTS))

    @property
    def num_single_texts(self) -> int:
        """Texts beside lists in a file, that were read as lists of one."""
        return sum(int(np.load(path).sum()) for path in self._paths(SINGLE_TEXTS))

    @cached_property
    def is_ragged(self) -> bool:
        """True if rows of any file have lists of documents; texts of the others count as lists of one."""
        return bool(self._paths(TEXT_OFFSETS))

    def _paths(self, name: str) -> list[Path]:
        """An index array in those files of the index that have it."""
        paths = [self._index(number) / f"{name}.npy" for number in self._filled]
        return [path for path in paths if path.exists()]

    @property
    def num_rows(self) -> int:
        """N."""
        return sum(self.file_rows)

    @property
    def num_near_rows(self) -> int:
        """Leading rows that may be read in any order: those of a buffer."""
        return sum(self.file_rows[: self.buffer_files])

    def array(self, name: str) -> np.ndarray:
        """An index array of all rows [..., N], memory-mapped; of rows with lists see ragged_arrays.py."""
        path = self._folder / f"{name}.npy"
        if not path.exists():
            parts = [self._part(name, self._index(number)) for number in self._filled]
            with replaced_file(path) as file:
                np.save(file, join(name, parts))
        return np.load(path, mmap_mode="r")

    def _part(self, name: str, index: Path) -> np.ndarray:
        has_lists = (index / f"{TEXT_OFFSETS}.npy").exists()
        if name not in (*NAMES, DOCUMENT_SCORES) or has_lists == self.is_ragged:
            part: np.ndarray = np.load(index / f"{name}.npy")
            return part
        flat = (TEXT_HASHES, TEXT_LENGTHS, *([name] if name == DOCUMENT_SCORES else []))
        columns = {each: np.load(index / f"{each}.npy") for each in flat}
        return arrays_of_columns(name, columns)

    def read(self, rows: np.ndarray) -> list[list[str]]:
        """Texts of some rows, by column."""
        return self._each_column(rows, TextColumn.read)

    def read_lists(self, rows: np.ndarray) -> list[list[list[str]]]:
        """Texts of some rows, by column, row and place in the list."""
        return self._each_column(rows, TextColumn.read_lists)

    def _each_column(
        self, rows: np.ndarray, read: Callable[[TextColumn, np.ndarray], list[T]]
    ) -> list[list[T]]:
        files_B = np.searchsorted(self._starts, rows, side="right") - 1
        columns: list[list[Any]] = [[None] * len(rows) for _ in self._roles.texts]
        for file in np.unique(files_B).tolist():
            places = np.flatnonzero(files_B == file)
            inside = rows[places] - self._starts[file]
            for column, texts in zip(columns, self._copy(self._filled[file])):
                for place, text in zip(places.tolist(), read(texts, inside)):
                    column[place] = text
        return columns

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *self.file_rows[:-1]])

    def _index(self, number: int) -> Path:
        return self._folder / f"index-{number:06d}"

    def _add_to_index(self, number: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        decoded = self._decode_file(number)
        with new_folder(self._index(number)) as folder:
            np.save(folder / f"{_NUM_ROWS}.npy", decoded.table.num_rows)
            write_json(folder / _DROPPED, [asdict(each) for each in decoded.dropped])
            for name, array in decoded.arrays.items():
                np.save(folder / f"{name}.npy", array)

    def _copy(self, number: int) -> list[TextColumn]:
        """A file's texts, memory-mapped; copied here where no process has done it."""
        if number in self._open:
            return self._open[number]
        path = self._folder / f"rows-{number:06d}.arrow"
        while number not in self._open:
            if not path.exists():
                self._write_copy(number, path)
            try:
                table = Dataset.from_file(str(path)).data
                os.utime(path)
            except FileNotFoundError:  # another process has just made room
                continue
            self._open[number] = [TextColumn(table.column(name)) for name in self._roles.texts]
        self._make_room()
        return self._open[number]

    def _write_copy(self, number: int, path: Path) -> None:
        decoded = self._decode_file(number)
        indexed = np.load(self._index(number) / f"{TEXT_HASHES}.npy")
        if not np.array_equal(decoded.arrays[TEXT_HASHES], indexed):
            raise ConfigError(
                path_key(self._field),
                "has changed since it was indexed",
                f"delete {self._folder} and start again",
                value=self._files.paths[number],
            )
        table = decoded.table
        with replaced_file(path) as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table, max_chunksize=1 << 16)

    def _make_room(self) -> None:
        """Delete the copies that were opened longest ago; a process that has one mapped can still read it."""
        keep = 2 * self.buffer_files
        while len(self._open) > keep:
            del self._open[next(iter(self._open))]
        copies = [(_opened(path), path) for path in self._folder.glob("rows-*.arrow")]
        for _, path in sorted(copies, reverse=True)[keep:]:
            path.unlink(missing_ok=True)

    def _decode_file(self, number: int) -> DecodedFile:
        with TemporaryDirectory(dir=self._folder, prefix=".decode-") as folder:
            return self._decode(self._files.only(self._files.paths[number]), folder)

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps: a DataLoader worker opens the copies again."""
        return self.__dict__ | {"_open": {}}


def _opened(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _fingerprint(files: Files, roles: Roles, variant: str) -> str:
    """Changes with names, sizes and times of the files, and with the roles of the columns."""
    keys = [fsspec.core.url_to_fs(path) for path in files.paths]
    parts = [f"{path}:{fs.ukey(place)}" for path, (fs, place) in zip(files.paths, keys)]
    return xxhash.xxh3_64_hexdigest("\n".join([*parts, roles.signature, variant]).encode())
