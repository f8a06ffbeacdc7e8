"""Texts by id on the disk, memory-mapped: a corpus, or queries.

Shape letters: N texts, B ids.

::

    FOLDER/texts.bin      all texts in UTF-8, one after the other
    FOLDER/offsets.npy    where each begins, int64 [N + 1]
    FOLDER/hashes.npy     xxhash64 of the ids, rising, uint64 [N]
    FOLDER/numbers.npy    number of the text that each of these ids has, int32 [N]

Rows name texts by number, so that no text is copied, whatever number of rows it is in.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa

from inbatch.data.hashing import hash_texts

_BLOCK = 1 << 16  # texts that are written at a time


class RepeatedIdError(Exception):
    """Two texts have one id: its numbers."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first, second)
        self.first, self.second = first, second


@final
@dataclass(frozen=True)
class TextIndex:
    """Texts of a folder that `write_index` has written."""

    folder: Path

    def numbers(self, ids: Iterable[str]) -> np.ndarray:
        """Number of the text of each id, int32 [B]; -1 where there is none."""
        wanted_B = hash_texts(list(ids))
        places_B = np.searchsorted(self._hashes, wanted_B).clip(max=max(len(self._hashes) - 1, 0))
        if len(self._hashes) == 0:
            return np.full(len(wanted_B), -1, dtype=np.int32)
        found_B = self._hashes[places_B] == wanted_B
        return np.where(found_B, self._numbers[places_B], np.int32(-1)).astype(np.int32)

    @property
    def num_texts(self) -> int:
        """N."""
        return len(self._offsets) - 1

    @cached_property
    def empty(self) -> np.ndarray:
        """Whether each text is empty, bool [N]."""
        return np.diff(self._offsets) == 0

    @cached_property
    def texts(self) -> pa.LargeStringArray:
        """All texts; its buffers are the mapped files."""
        path = self.folder / "texts.bin"
        data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        buffers = (pa.py_buffer(self._offsets), pa.py_buffer(data))
        return pa.LargeStringArray.from_buffers(self.num_texts, *buffers)

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.load(self.folder / "offsets.npy", mmap_mode="r")

    @cached_property
    def _hashes(self) -> np.ndarray:
        return np.load(self.folder / "hashes.npy", mmap_mode="r")

    @cached_property
    def _numbers(self) -> np.ndarray:
        return np.load(self.folder / "numbers.npy", mmap_mode="r")


def write_index(folder: Path, items: Iterable[tuple[str, str]]) -> TextIndex:
    """Write texts by id; some 28 bytes a text are in memory meanwhile.

    Raises:
        RepeatedIdError: An id comes twice.
    """
    folder.mkdir()
    offsets, hashes, ids = array("q", [0]), [], []
    with (folder / "texts.bin").open("wb") as file:
        for key, text in items:
            data = text.encode()
            file.write(data)
            offsets.append(offsets[-1] + len(data))
            ids.append(key)
            if len(ids) == _BLOCK:
                hashes.append(hash_texts(ids))
                ids.clear()
    hashes.append(hash_texts(ids))
    hashes_N = np.concatenate(hashes)
    order_N = np.argsort(hashes_N, kind="stable")
    sorted_N = hashes_N[order_N]
    if len(twice := np.flatnonzero(sorted_N[1:] == sorted_N[:-1])):
        raise RepeatedIdError(int(order_N[twice[0]]), int(order_N[twice[0] + 1]))
    np.save(folder / "offsets.npy", np.frombuffer(offsets, dtype=np.int64))
    np.save(folder / "hashes.npy", sorted_N)
    np.save(folder / "numbers.npy", order_N.astype(np.int32))
    return TextIndex(folder)
