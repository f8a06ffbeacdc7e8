"""Embeddings on the disk, memory-mapped. Shape letters: N texts, n texts of a shard, W values of a row.

::

    FOLDER/manifest.json          what the folder holds, and what it was made from
          /part-00000.npy         rows of the first shard of texts [n, W]
          /ids-00000.arrow        their ids, where they have some: strings, one column
          /ranges.npy             of int8 and uint8: least and largest value of each dimension [2, D]

A part appears whole, by a rename, and behind its ids; so those that are there are finished. In place of the
parts a folder may hold one file, see outputs.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from inbatch.corpus.form import Form
from inbatch.errors import ConfigError
from inbatch.files import replaced_file, write_json
from inbatch.guide.store import take_rows

MANIFEST = "manifest.json"
RANGES = "ranges.npy"
IDS = "ids.npy"  # beside one file of all rows
FORMAT = 1  # of the folder


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a folder holds.

    num_texts: N.
    shard_texts: texts of a shard, n; the last may have fewer.
    form: how embeddings are stored.
    has_ids: whether the texts have ids.
    made_from: hashes and settings that the values depend on, by what they are of.
    file: the name of the one file that the parts have become, "" where they are parts.
    """

    num_texts: int
    shard_texts: int
    form: Form
    has_ids: bool
    made_from: dict[str, Any]
    file: str = ""

    @property
    def num_shards(self) -> int:
        """Shards of all texts."""
        return -(-self.num_texts // self.shard_texts)

    def bounds(self, shard: int) -> tuple[int, int]:
        """First text of a shard, and the one behind its last."""
        start = shard * self.shard_texts
        return start, min(start + self.shard_texts, self.num_texts)

    def write(self, folder: Path) -> None:
        """Write it to its folder."""
        write_json(folder / MANIFEST, {"format": FORMAT, **asdict(self)})


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where it has none.

    Raises:
        ConfigError: it cannot be read, or is of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text())
        version = values.pop("format")
        if version == FORMAT:
            return Manifest(**{**values, "form": Form(**values["form"])})
        problem = f"is of version {version}, and this is version {FORMAT}"
    except (ValueError, KeyError, TypeError, AttributeError):
        problem = "is damaged"
    raise ConfigError(str(path), problem, "delete the folder, or name another one")


def part_path(folder: Path, shard: int) -> Path:
    """Where the rows of a shard are."""
    return folder / f"part-{shard:05}.npy"


def ids_path(folder: Path, shard: int) -> Path:
    """Where the ids of a shard are."""
    return folder / f"ids-{shard:05}.arrow"


def write_part(folder: Path, shard: int, rows_nW: np.ndarray, ids: Sequence[str] | None) -> None:
    """Write a shard, which is there once its rows are."""
    if ids is not None:
        table = pa.table({"id": pa.array(ids, pa.large_string())})
        with (
            replaced_file(ids_path(folder, shard)) as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
    write_array(part_path(folder, shard), rows_nW)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file, which appears whole."""
    with replaced_file(path) as file:
        np.save(file, array)


def missing_shards(folder: Path, manifest: Manifest) -> list[int]:
    """Numbers of the shards that a folder lacks, rows or ids; none where one file has taken their place."""
    if manifest.file:
        return []
    there = {path.name for kind in ("part-*.npy", "ids-*.arrow") for path in folder.glob(kind)}
    kinds = (part_path, ids_path) if manifest.has_ids else (part_path,)
    numbers = range(manifest.num_shards)
    return [n for n in numbers if not all(kind(folder, n).name in there for kind in kinds)]


def open_embeddings(folder: str | Path) -> StoredEmbeddings:
    """Map the embeddings of a folder that is complete.

    Raises:
        ConfigError: it holds none, not yet all, or a file that is damaged or not of a kind to be mapped.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise ConfigError(str(folder), "holds no embeddings", "make some with `inbatch embed`")
    if manifest.file:
        if not manifest.file.endswith(".npy"):
            fix = "read it with a library for such files, or embed with format=store"
            raise ConfigError(str(folder / manifest.file), "cannot be mapped", fix)
        files = [folder / manifest.file]
    else:
        missing = missing_shards(folder, manifest)
        if missing:
            raise ConfigError(
                str(folder),
                f"lacks {len(missing)} of {manifest.num_shards} parts",
                "run the command that makes them again, which goes on",
            )
        files = [part_path(folder, shard) for shard in range(manifest.num_shards)]
    stored = StoredEmbeddings(folder, manifest, [_map(path, manifest.form) for path in files])
    stored.check(files)
    return stored


@final
class StoredEmbeddings:
    """N embeddings; holds memory maps only.

    Args:
        folder: where they are.
        manifest: what it says of them.
        parts: their rows, in order.
    """

    def __init__(self, folder: Path, manifest: Manifest, parts: Sequence[np.ndarray]) -> None:
        self.folder, self.manifest = folder, manifest
        self._parts = list(parts)
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return self.manifest.num_texts

    @property
    def dimension(self) -> int:
        """D; a row of signs has an eighth as many values."""
        return self.manifest.form.dimension

    @property
    def dtype(self) -> str:
        """float32, float16, int8, uint8, binary (signs in int8) or ubinary (in uint8)."""
        return self.manifest.form.dtype

    def check(self, files: Sequence[Path]) -> None:
        """Make sure that each part has as many rows and ids as texts.

        Args:
            files: of the parts.

        Raises:
            ConfigError: one has not.
        """
        manifest = self.manifest
        shards = [(0, len(self))] if manifest.file else map(manifest.bounds, range(len(files)))
        for number, (file, part, (start, stop)) in enumerate(zip(files, self._parts, shards)):
            if len(part) != stop - start:
                raise damaged(file)
            if not manifest.has_ids:
                continue
            names = self.folder / IDS if manifest.file else ids_path(self.folder, number)
            try:
                found = self._names() if manifest.file else read_ids(self.folder, number)
            except (OSError, ValueError, EOFError):  # ArrowInvalid is a ValueError
                raise damaged(names) from None
            if len(found) != stop - start:
                raise damaged(names)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The rows ``start .. stop - 1``, [stop - start, W]; a view of the file where one part has them all.

        Raises:
            IndexError: they are not within ``range(N)``.
        """
        self._check(start, stop)
        first, last = np.searchsorted(self._starts, (start, max(stop - 1, start)), side="right") - 1
        parts = [
            self._parts[k][max(start - self._starts[k], 0) : stop - self._starts[k]]
            for k in range(first, min(last + 1, len(self._parts)))
        ]
        if len(parts) == 1:
            return parts[0]
        form = self.manifest.form
        empty = np.empty((0, form.width), dtype=form.numpy_dtype)
        return np.concatenate([empty, *parts])

    def take(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """A copy of the rows of these numbers, in any order, [len(indices), W].

        Raises:
            IndexError: one is not within ``range(N)``.
        """
        places = np.asarray(indices, dtype=np.int64)
        if len(places):
            self._check(int(places.min()), int(places.max()) + 1)
        form = self.manifest.form
        out = np.empty((len(places), form.width), dtype=form.numpy_dtype)
        take_rows(self._parts, self._starts, places, out)
        return out

    def ids(self, start: int, stop: int) -> list[str]:
        """Ids of the texts ``start .. stop - 1``; their numbers where they have none.

        Raises:
            IndexError: they are not within ``range(N)``.
        """
        self._check(start, stop)
        if not self.manifest.has_ids:
            return [str(number) for number in range(start, stop)]
        if self.manifest.file:
            names: list[str] = self._names()[start:stop].tolist()
            return names
        found: list[str] = []
        size = self.manifest.shard_texts
        for shard in range(start // size, -(-stop // size)):
            first = shard * size
            column = read_ids(self.folder, shard)
            found += column.slice(max(start - first, 0), stop - max(start, first)).to_pylist()
        return found

    def _names(self) -> np.ndarray:
        return np.asarray(np.load(self.folder / IDS, mmap_mode="r"))

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self):
            raise IndexError(
                f"rows {start} to {stop} are not within the {len(self)} of {self.folder}"
            )


def read_ids(folder: Path, shard: int) -> pa.ChunkedArray:
    """The ids of a shard, mapped."""
    with pa.memory_map(str(ids_path(folder, shard))) as file:
        return pa.ipc.open_file(file).read_all().column("id")


def _map(path: Path, form: Form) -> np.ndarray:
    try:
        # A plain array over the map: subclasses of ndarray cost time at each indexing.
        rows_nW = np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError, EOFError):
        raise damaged(path) from None
    if rows_nW.shape[1:] != (form.width,) or rows_nW.dtype != form.numpy_dtype:
        raise damaged(path)
    return rows_nW


def damaged(path: Path) -> ConfigError:
    """The refusal of a file that is made again once it is gone."""
    return ConfigError(str(path), "is damaged", "delete it, and the same command makes it again")
