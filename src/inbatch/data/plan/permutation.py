"""Shuffles of ``range(N)`` that hold no array of N numbers.

A shuffle here is a function of (key, position): any slice of it costs the length of the slice, so a
resumed run finds its rows at once and every rank and worker computes the same order from one integer.

`KeyedPermutation` walks cycles of a bijection on ``2**k >= N`` numbers (Black and Rogaway 2002,
"Ciphers with arbitrary finite domains"): apply the bijection until the result falls below N. On average fewer
than two applications are needed. The bijection is rounds of ``x = a * x + b mod 2**k; x ^= x >> s`` with an
odd ``a``: the product carries low bits up, the shift carries high bits down. `ShuffledRange` adds an
order in two levels, blocks of consecutive rows and then rows inside a window of many blocks, for data on
storage that is slow at random reads. Only integer arithmetic is used: no generator whose stream a numpy
release may change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

_NUM_ROUNDS = 6  # from 5 on, no statistic of the tests tells the order from a true shuffle
_TABLE_ROWS = 1 << 12  # few bits have few such bijections: short ranges are sorted by a hash
_SLICE = 1 << 15  # numbers worked on at a time, so that temporaries stay in the processor's cache
_WINDOW_BLOCKS = 1 << 12


def derive_key(*parts: int | str) -> int:
    """64-bit key of a tuple of numbers and names; equal parts give equal keys on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix64(values: np.ndarray) -> np.ndarray:
    """Scramble uint64 numbers, one to one (the finaliser of SplitMix64, Steele et al. 2014)."""
    out = values ^ (values >> np.uint64(30))
    out *= np.uint64(0xBF58476D1CE4E5B9)
    out ^= out >> np.uint64(27)
    out *= np.uint64(0x94D049BB133111EB)
    out ^= out >> np.uint64(31)
    return out


def keyed_hash(values: np.ndarray, *, key: int) -> np.ndarray:
    """Pseudo-random uint64 of each uint64 number under a key."""
    salt = np.uint64(key & 0xFFFFFFFFFFFFFFFF)
    return mix64(mix64(values + salt) ^ salt)


@dataclass(frozen=True)
class KeyedPermutation:
    """A pseudo-random order of ``range(num_rows)``: position -> row, one to one.

    Memory is O(1) (32 KiB for short ranges), time O(positions asked for). Not for cryptography.
    """

    num_rows: int
    key: int

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Rows [n] int64 at `positions` [n], each in ``range(num_rows)``."""
        if self.num_rows <= _TABLE_ROWS:
            return self._table[positions]
        rows = positions.astype(np.uint64)
        for start in range(0, len(rows), _SLICE):
            self._walk(rows[start : start + _SLICE])
        return rows.view(np.int64)

    @cached_property
    def _table(self) -> np.ndarray:
        numbers = np.arange(self.num_rows, dtype=np.uint64)
        return np.argsort(keyed_hash(numbers, key=self.key), kind="stable")

    @cached_property
    def _rounds(self) -> tuple[tuple[np.uint64, np.uint64], ...]:
        numbers = keyed_hash(np.arange(2 * _NUM_ROUNDS, dtype=np.uint64), key=self.key)
        return tuple(
            (numbers[2 * i] | np.uint64(1), numbers[2 * i + 1]) for i in range(_NUM_ROUNDS)
        )

    def _scramble(self, numbers: np.ndarray) -> None:
        """One application of the bijection on ``2**k`` numbers, in place."""
        bits = (self.num_rows - 1).bit_length()
        mask, shift = np.uint64((1 << bits) - 1), np.uint64((bits + 1) // 2)
        high = np.empty_like(numbers)
        for multiplier, addend in self._rounds:
            numbers *= multiplier
            numbers += addend
            numbers &= mask
            np.right_shift(numbers, shift, out=high)
            numbers ^= high

    def _walk(self, numbers: np.ndarray) -> None:
        """Apply the bijection to each number until it is below `num_rows`, in place."""
        self._scramble(numbers)
        outside = np.flatnonzero(numbers >= np.uint64(self.num_rows))
        walking = numbers[outside]
        while len(outside):
            self._scramble(walking)
            arrived = walking < np.uint64(self.num_rows)
            numbers[outside[arrived]] = walking[arrived]
            outside, walking = outside[~arrived], walking[~arrived]


@dataclass(frozen=True)
class ShuffledRange:
    """An order of ``range(num_rows)`` whose slices can be read at any place.

    With ``block_rows = 1`` it is a `KeyedPermutation`. Otherwise blocks of `block_rows` consecutive rows
    are put in pseudo-random order, and the rows of each window of at least `window_rows` rows and 4,096
    blocks are permuted among themselves. The rows of a block then stay within one window. The last,
    incomplete block of the data lies in the last window.
    """

    num_rows: int
    key: int
    block_rows: int = 1
    window_rows: int = 1

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Rows [stop - start] int64 at positions ``start .. stop - 1``."""
        if self.block_rows == 1:
            return self._blocks(np.arange(start, stop))
        size = max(_WINDOW_BLOCKS, -(-self.window_rows // self.block_rows)) * self.block_rows
        parts = [np.empty(0, np.int64)]
        for window in range(start // size, -(-stop // size)):
            first, last = window * size, min((window + 1) * size, self.num_rows)
            inside = KeyedPermutation(last - first, derive_key(self.key, window))
            places = np.arange(max(start, first) - first, min(stop, last) - first)
            parts.append(self._rows_of_places(first + inside(places)))
        return np.concatenate(parts)

    @cached_property
    def _blocks(self) -> KeyedPermutation:
        return KeyedPermutation(self.num_rows // self.block_rows, self.key)

    def _rows_of_places(self, places: np.ndarray) -> np.ndarray:
        """Rows at places of the order of blocks; the incomplete block keeps the last places."""
        blocks, offsets = np.divmod(places, self.block_rows)
        complete = blocks < self._blocks.num_rows
        blocks[complete] = self._blocks(blocks[complete])
        return blocks * self.block_rows + offsets


def slice_windows(
    bounds: np.ndarray, start: int, stop: int, rows_of: Callable[[int, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Rows [stop - start] int64 at positions ``start .. stop - 1`` of an order that is made in windows.

    Args:
        bounds: first position of each window, and the end.
        start: first position.
        stop: end of the positions.
        rows_of: number of a window, positions inside it -> rows.
    """
    parts = [np.empty(0, np.int64)]
    window = int(np.searchsorted(bounds, start, side="right")) - 1
    while start < stop:
        last = int(bounds[window + 1])
        parts.append(rows_of(window, np.arange(start, min(stop, last))))
        start, window = last, window + 1
    return np.concatenate(parts)


@dataclass(frozen=True)
class FilesRange:
    """An order of rows in files that reads only a few files at a time.

    Files are put in pseudo-random order and cut into windows of `buffer_files`; the rows of a window are
    permuted among themselves.
    """

    file_rows: tuple[int, ...]
    key: int
    buffer_files: int

    @property
    def num_rows(self) -> int:
        """Rows of all files."""
        return sum(self.file_rows)

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Rows [stop - start] int64 at positions ``start .. stop - 1``."""
        return slice_windows(self._bounds, start, stop, self._rows_of_window)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Rows [n] int64 at any `positions` [n]."""
        rows = np.empty(len(positions), np.int64)
        window_n = np.searchsorted(self._bounds, positions, side="right") - 1
        for window in np.unique(window_n).tolist():
            here = np.flatnonzero(window_n == window)
            rows[here] = self._rows_of_window(window, positions[here])
        return rows

    @cached_property
    def _order(self) -> np.ndarray:
        """Files in the order in which they are read."""
        order = KeyedPermutation(len(self.file_rows), derive_key(self.key, "files"))
        return order(np.arange(len(self.file_rows)))

    @cached_property
    def windows(self) -> list[tuple[int, int]]:
        """First position of each window, and the first after it."""
        return list(pairwise(self._bounds.tolist()))

    @cached_property
    def _bounds(self) -> np.ndarray:
        read = np.cumsum([0, *np.asarray(self.file_rows)[self._order]])
        return np.append(read[: -1 : self.buffer_files], read[-1])

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *self.file_rows])

    def _rows_of_window(self, window: int, positions: np.ndarray) -> np.ndarray:
        first, last = self.windows[window]
        places = KeyedPermutation(last - first, derive_key(self.key, window))(positions - first)
        files = self._order[window * self.buffer_files : (window + 1) * self.buffer_files]
        ends = np.cumsum(np.asarray(self.file_rows)[files])
        number = np.searchsorted(ends, places, side="right")
        before = np.append(0, ends[:-1])[number]
        return self._starts[files[number]] + places - before
