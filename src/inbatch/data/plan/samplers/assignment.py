"""Assigns each row of a window to a batch so that no value occurs twice in a batch.

Shape letters: R rows of the window, V values of a row, T tied rows (they share a value with another row),
A rows under way, G values that several rows share, K batches (at most 64).

A value's 64-bit mask says which batches hold it, the masks of a row's values together say where the row may
not go, and all tied rows choose at once, in rounds; where two rows of a round bring one value to one batch,
one of them chooses again. Rows that share nothing fill up what is left. A value that many rows hold costs
no more than others: once it is in every batch, its remaining rows drop out in one operation.
"""

from __future__ import annotations

import numpy as np

from inbatch.data.plan.permutation import keyed_hash
from inbatch.data.plan.samplers.conflicts import Conflicts
from inbatch.data.ragged import spans

MAX_BATCHES = 64  # bits of a mask
_EVERY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)  # all batches
_MAX_KICKS = 32
_MAX_CLAIMS = 1 << 24


def assign_batches(
    conflicts: Conflicts, *, num_batches: int, capacity: int, key: int, first_fit: bool = False
) -> np.ndarray:
    """Batch of each row, int8 [R]; -1 for rows that wait.

    A pure function of its arguments. Batches are full or empty: where the rows do not suffice for all of
    them, the emptiest are dissolved. With `first_fit` a row takes the first batch that is open to it instead
    of a random one, and batches stay as full as they get: 0 is the fullest.
    """
    window = _Assignment(
        conflicts, num_batches=num_batches, capacity=capacity, key=key, first_fit=first_fit
    )
    waiting = window.place(np.arange(len(conflicts.rows_T)))
    while not first_fit:
        waiting = window.make_room(waiting)
        dissolved = window.dissolve_short_batches()
        if not len(dissolved):
            break
        waiting = window.place(np.concatenate([waiting, dissolved]))
    batch_R = np.full(conflicts.num_rows, -1, dtype=np.int8)
    batch_R[conflicts.rows_T] = window.batch_T
    free = np.ones(conflicts.num_rows, dtype=bool)
    free[conflicts.rows_T] = False
    open_slots = np.repeat(np.arange(num_batches, dtype=np.int8), window.room_K)
    free_rows = np.flatnonzero(free)[: len(open_slots)]
    batch_R[free_rows] = open_slots[: len(free_rows)]
    return batch_R


class _Assignment:
    """The assignment under way."""

    def __init__(
        self, conflicts: Conflicts, *, num_batches: int, capacity: int, key: int, first_fit: bool
    ) -> None:
        self.batch_T = np.full(len(conflicts.rows_T), -1, dtype=np.int8)
        self.room_K = np.full(num_batches, capacity)
        self._live_K = np.ones(num_batches, dtype=bool)
        self._capacity = capacity
        self._num_free = conflicts.num_rows - len(conflicts.rows_T)
        self._groups_TV = conflicts.groups_TV
        self._held_G = np.zeros(
            len(conflicts.sizes_G), dtype=np.uint64
        )  # batches that hold a value
        self._held_G[-2:-1] = _EVERY if conflicts.last_is_closed else 0
        self._none = len(conflicts.sizes_G) - 1
        self._claims = np.empty(_power_of_two(4 * conflicts.groups_TV.size), dtype=np.int32)
        self._key, self._round, self._first_fit = key, 0, first_fit

    def place(self, active_A: np.ndarray) -> np.ndarray:
        """Place tied rows in rounds; returns those to which no batch with room is open.

        Each round places at least one row: the last row under way wins all its claims.
        """
        waiting = [active_A[:0]]
        while len(active_A):
            allowed_A = ~self._closed(active_A) & _bits(self.room_K > 0)
            possible = allowed_A != 0
            waiting.append(active_A[~possible])
            active_A, allowed_A = active_A[possible], allowed_A[possible]
            batch_A = self._choose(active_A, allowed_A)
            won_A = self._claim(active_A, batch_A)
            won_A[won_A] = _first_of_each(batch_A[won_A], self.room_K)
            self._enter(active_A[won_A], batch_A[won_A])
            active_A = active_A[~won_A]
        return np.concatenate(waiting)

    def make_room(self, waiting: np.ndarray) -> np.ndarray:
        """Let waiting rows into full batches, whose rows move on, while slots elsewhere stay empty.

        Returns the rows that still wait; those whose values are in every batch are given up.
        """
        for _ in range(_MAX_KICKS):
            allowed = ~self._closed(waiting) & _bits(self._live_K)
            waiting, allowed = waiting[allowed != 0], allowed[allowed != 0]
            missing = int(self.room_K.sum()) - self._num_free
            if missing <= 0 or not len(waiting):
                break
            batches = self._choose(waiting, allowed)
            leaving = self._members(batches[:missing], waiting[:missing])
            self._leave(leaving)
            waiting = self.place(np.concatenate([waiting, leaving]))
        return waiting

    def dissolve_short_batches(self) -> np.ndarray:
        """Close batches that cannot be filled, emptiest first; returns their tied rows."""
        num_rows = int((self.batch_T >= 0).sum()) + self._num_free
        surplus = int(self._live_K.sum()) - num_rows // self._capacity
        if surplus <= 0:
            return np.empty(0, dtype=np.int64)
        emptiness_K = np.where(self._live_K, self.room_K, -1)
        closing = np.argsort(-emptiness_K, kind="stable")[:surplus]
        rows = np.flatnonzero(np.isin(self.batch_T, closing))
        self._leave(rows)
        self._live_K[closing] = False
        self.room_K[closing] = 0
        return rows

    def _closed(self, rows_A: np.ndarray) -> np.ndarray:
        """Mask of the batches that hold a value of each row."""
        closed_A = np.zeros(len(rows_A), dtype=np.uint64)
        for groups_A in self._groups_TV[rows_A].T:
            closed_A |= self._held_G[groups_A]
        return closed_A

    def _choose(self, rows_A: np.ndarray, allowed_A: np.ndarray) -> np.ndarray:
        """One of the allowed batches for each row: the first at or after a random one."""
        if not self._first_fit:
            self._round += 1
            numbers = keyed_hash(rows_A.astype(np.uint64), key=self._key + self._round)
            start_A = numbers % np.uint64(len(self.room_K))
            later_A = (allowed_A >> start_A) << start_A
            allowed_A = np.where(later_A != 0, later_A, allowed_A)
        lowest_A = allowed_A & (~allowed_A + np.uint64(1))
        return np.bitwise_count(lowest_A - np.uint64(1)).astype(np.int64)

    def _claim(self, rows_A: np.ndarray, batch_A: np.ndarray) -> np.ndarray:
        """Rows whose values no other row of the round brings to the same batch.

        Claims share a table that may be smaller than G * K; rows that meet there by chance try again.
        """
        groups_AV = self._groups_TV[rows_A]
        size = min(_power_of_two(4 * groups_AV.size), len(self._claims))
        slots_AV = (groups_AV * MAX_BATCHES + batch_A[:, None]) & (size - 1)
        numbers_A1 = np.arange(len(rows_A), dtype=np.int32)[:, None]
        self._claims[slots_AV] = numbers_A1  # of repeated slots the last row's number stays
        return ((self._claims[slots_AV] == numbers_A1) | (groups_AV == self._none)).all(axis=1)

    def _enter(self, rows: np.ndarray, batches: np.ndarray) -> None:
        self.batch_T[rows] = batches
        self.room_K -= np.bincount(batches, minlength=len(self.room_K))
        self._flip(rows, batches)

    def _leave(self, rows: np.ndarray) -> None:
        batches = self.batch_T[rows].astype(np.int64)
        self.batch_T[rows] = -1
        self.room_K += np.bincount(batches, minlength=len(self.room_K))
        self._flip(rows, batches)

    def _flip(self, rows: np.ndarray, batches: np.ndarray) -> None:
        """Note that rows entered or left; no value is twice in a batch, so each bit flips once."""
        flags = np.uint64(1) << batches.astype(np.uint64)
        for groups in self._groups_TV[rows].T:
            np.bitwise_xor.at(self._held_G, groups, flags)
        self._held_G[self._none] = 0

    def _members(self, batches: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """A random tied row of each of the given batches, where it has one, without repetition."""
        order = np.argsort(self.batch_T, kind="stable")
        firsts, ends = (
            np.searchsorted(self.batch_T[order], batches, side=side) for side in ("left", "right")
        )
        numbers = keyed_hash(rows.astype(np.uint64), key=~self._key - self._round) >> np.uint64(1)
        picks = firsts + numbers.astype(np.int64) % np.maximum(ends - firsts, 1)
        return np.unique(order[picks[ends > firsts]])


def _first_of_each(batches: np.ndarray, room_K: np.ndarray) -> np.ndarray:
    """Tell for each row whether it is among the first ``room_K[batch]`` of its batch."""
    counts_K = np.bincount(batches, minlength=len(room_K))
    if (counts_K <= room_K).all():
        return np.ones(len(batches), dtype=bool)
    order = np.argsort(batches.astype(np.uint8), kind="stable")
    ranks = np.empty(len(batches), dtype=np.int64)
    ranks[order] = spans(0, counts_K)
    return ranks < room_K[batches]


def _bits(flags_K: np.ndarray) -> np.uint64:
    return np.uint64(sum(1 << int(k) for k in np.flatnonzero(flags_K)))


def _power_of_two(number: int) -> int:
    return min(_MAX_CLAIMS, 1 << max(number - 1, 1).bit_length())
