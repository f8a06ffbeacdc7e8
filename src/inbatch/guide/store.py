"""Embeddings on disk by text hash. Shape letters: n texts of a shard, S texts of a table, D dimension.

    <store_dir>/<guide fingerprint>/guide.json           what the fingerprint was made of
                                   /<hash of prompt>/    a table: the texts behind one prompt
                                       prompt.txt
                                       shard-<random>/   keys.npy uint64 [n] sorted, rows.npy [n, D]
                                       index-<hash>/     keys.npy uint64 [S] sorted, places.npy int64 [S]

Folders appear whole: they are written under another name and renamed, so that any number of processes
may write while others read, and a killed writer leaves no half shard. Nothing is changed or deleted
later. An index merges the keys of the shards that its name stands for (16 bytes a text; all processes
of a machine share its pages); a missing one is built from the shards.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import xxhash

from inbatch.errors import ConfigError
from inbatch.files import new_folder, write_text


@final
@dataclass(frozen=True)
class Table:
    """The shards of one guide and one prompt.

    Args:
        folder: where they are.
        dimension: D.
        dtype: of the rows, "float16" or "float32".
    """

    folder: Path
    dimension: int
    dtype: str

    def shards(self) -> list[str]:
        """Names of the finished shards, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.glob("shard-*"))

    def add(self, keys_n: np.ndarray, rows_nD: np.ndarray) -> str:
        """Write a shard of distinct keys, in any order, and rows of the table's dtype; returns its name.

        Raises:
            ConfigError: a row is not finite, which float16 does not hold above 65504.
        """
        if not np.isfinite(rows_nD).all():
            raise ConfigError(
                "guide.store_dtype",
                "does not hold all embeddings of the guide: some are not finite",
                "set float32, or use another guide",
                value=self.dtype,
            )
        order = np.argsort(keys_n)
        name = f"shard-{uuid.uuid4().hex}"
        _write_folder(self.folder / name, {"keys": keys_n[order], "rows": rows_nD[order]})
        return name

    def keys(self, shard: str) -> np.ndarray:
        """Sorted keys of a shard, uint64 [n], memory-mapped."""
        return _map(self.folder / shard / "keys.npy")

    def present(self, keys_S: np.ndarray, shards: Iterable[str]) -> np.ndarray:
        """Mark the sorted, distinct keys that the given shards hold: bool [S]."""
        found = np.zeros(len(keys_S), dtype=bool)
        for shard in shards if len(keys_S) else ():
            keys_n = self.keys(shard)
            place = np.searchsorted(keys_S, keys_n)
            place[place == len(keys_S)] = 0
            found[place[keys_S[place] == keys_n]] = True
        return found

    def open(self) -> OpenTable:
        """The table of all shards that are finished now."""
        shards = self.shards()
        rows = [self._rows(shard) for shard in shards]
        keys_S, places_S = self._index(shards)
        return OpenTable(keys_S, places_S, rows, self.dimension, self.dtype)

    def _index(self, shards: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Sorted keys of all shards, and the place of each among their rows laid end to end."""
        if not shards:
            return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
        folder = self.folder / f"index-{xxhash.xxh3_128_hexdigest(' '.join(shards).encode())}"
        if not folder.is_dir():
            keys_S = np.concatenate([self.keys(shard) for shard in shards])
            places_S = np.argsort(keys_S, kind="stable")
            _write_folder(folder, {"keys": keys_S[places_S], "places": places_S})
        return _map(folder / "keys.npy"), _map(folder / "places.npy")

    def _rows(self, shard: str) -> np.ndarray:
        rows_nD = _map(self.folder / shard / "rows.npy")
        if rows_nD.shape[1:] != (self.dimension,) or rows_nD.dtype != self.dtype:
            raise _damaged(self.folder / shard)
        return rows_nD


@final
class OpenTable:
    """A table to look up in; holds memory maps only."""

    def __init__(
        self,
        keys_S: np.ndarray,
        places_S: np.ndarray,
        rows: Sequence[np.ndarray],
        dimension: int,
        dtype: str,
    ) -> None:
        self._keys_S, self._places_S, self._rows = keys_S, places_S, list(rows)
        self._starts = np.cumsum([0, *map(len, rows)])
        self.dimension, self.dtype = dimension, dtype

    def __len__(self) -> int:
        return len(self._keys_S)

    def contains(self, keys_N: np.ndarray) -> np.ndarray:
        """Mark the keys that the table holds: bool [N]."""
        return self._find(keys_N)[1]

    def take(self, keys_N: np.ndarray, out_ND: np.ndarray) -> np.ndarray:
        """Copy the rows of some keys; returns which keys it holds, bool [N].

        Args:
            keys_N: uint64, in any order, repeated or not.
            out_ND: contiguous, of the table's dtype; rows of keys that are missing stay as they are.
        """
        index_N, held_N = self._find(keys_N)
        if not held_N.all():
            return held_N
        take_rows(self._rows, self._starts, self._places_S[index_N], out_ND)
        return held_N

    def _find(self, keys_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place of each key in the index, and whether it is there."""
        if not len(self._keys_S):
            return np.zeros(len(keys_N), dtype=np.int64), np.zeros(len(keys_N), dtype=bool)
        index_N = np.searchsorted(self._keys_S, keys_N)
        index_N[index_N == len(self._keys_S)] = 0
        return index_N, self._keys_S[index_N] == keys_N


def take_rows(
    parts: Sequence[np.ndarray], starts: np.ndarray, places_N: np.ndarray, out_ND: np.ndarray
) -> None:
    """Copy rows of arrays that lie end to end.

    Args:
        parts: the arrays.
        starts: place of each one's first row, and the end of the last.
        places_N: int64, in any order, repeated or not.
        out_ND: contiguous, of the arrays' type.
    """
    if len(parts) == 1:
        # "clip" (nothing is clipped) writes to `out` directly, the default by way of a buffer.
        np.take(parts[0], places_N, axis=0, out=out_ND, mode="clip")
        return
    part_N = np.searchsorted(starts, places_N, side="right") - 1
    order_N = np.argsort(part_N, kind="stable")
    numbers, cuts = np.unique(part_N[order_N], return_index=True)
    for number, of in zip(numbers.tolist(), np.split(order_N, cuts[1:])):
        out_ND[of] = parts[number][places_N[of] - starts[number]]


def table_folder(folder: Path, prompt: str) -> Path:
    """The folder of the texts behind a prompt; the prompt is written into it, for people."""
    path = folder / f"prompt-{xxhash.xxh3_64_hexdigest(prompt.encode())}"
    if not (path / "prompt.txt").exists():
        write_text(path / "prompt.txt", prompt)
    return path


def _write_folder(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a folder of arrays that appears whole, or not at all."""
    with new_folder(folder) as fresh:
        for name, array in arrays.items():
            with (fresh / f"{name}.npy").open("wb") as file:
                np.save(file, array)


def _map(path: Path) -> np.ndarray:
    try:
        # A plain array over the map: subclasses of ndarray cost time at each indexing.
        return np.asarray(np.load(path, mmap_mode="r"))
    except (ValueError, EOFError) as error:
        raise _damaged(path.parent) from error


def _damaged(folder: Path) -> ConfigError:
    fix = "delete it, and the next run computes it again"
    return ConfigError("guide.store_dir", "is damaged", fix, value=str(folder))
