"""Ends a doctor that hangs: in a collective, on a dead file system, or waiting for a rank that is gone.

A thread looks at the clock, since the main thread may be in a call that never returns. Each process has one;
rank 0's reports which ranks do not answer, and which do but are stuck in the check.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from inbatch.doctor.board import Board
from inbatch.doctor.report import name_ranks
from inbatch.doctor.result import Result

_LOOK_S = 0.2
_GRACE_S = 2.0  # in which the watches of the other ranks say that they hang too
_WRITE_S = 10.0  # for the report
_HANGS, _END = "hangs", "end"
_ABSENT = "see whether all have started, and whether their nodes reach rank 0"
_GONE = "see whether the process still runs, and the log of its node"
_STUCK = "look at what it uses (network, disk, driver), or set a longer timeout_s"

#: Called on rank 0 with the number of the check, the results that are there, and what is wrong.
GiveUp = Callable[[int, dict[int, list[Result]], str], None]


class Watch:
    """Watches the checks of this process; a context around all of them.

    Args:
        board: with a connection of its own.
        rank, world_size: of this process.
        names: of the checks.
        timeout_s: seconds that one check may take on all ranks.
        give_up: reports, before the process ends with exit code 1.
    """

    def __init__(
        self,
        board: Board,
        *,
        rank: int,
        world_size: int,
        names: list[str],
        timeout_s: float,
        give_up: GiveUp,
    ) -> None:
        self._board, self._rank, self._world_size = board, rank, world_size
        self._names, self._timeout_s, self._give_up = names, timeout_s, give_up
        self._number, self._answered, self._is_late = 0, False, False
        self._deadline = time.monotonic() + timeout_s
        self._closed = threading.Event()

    def __enter__(self) -> Watch:
        threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()

    def begin(self, number: int) -> None:
        """A check begins; the clock starts again."""
        self._number, self._answered, self._is_late = number, False, False
        self._deadline = time.monotonic() + self._timeout_s

    def answered(self) -> None:
        """This rank has left its results, and waits for others."""
        self._answered = True

    def _look(self) -> None:
        while not self._closed.wait(_LOOK_S):
            try:
                if self._rank and self._board.is_marked(_END, 0, 0):
                    os._exit(1)
                if time.monotonic() > self._deadline:
                    self._expire()
            except RuntimeError:  # the store has ended with rank 0
                if self._answered and self._number == len(self._names) - 1:
                    return  # and so has all work
                self._leave()

    def _expire(self) -> None:
        number = self._number
        if not self._answered:
            self._board.mark(_HANGS, number)
        if self._rank:
            if self._is_late:
                self._leave()
            self._is_late, self._deadline = True, time.monotonic() + 3 * _GRACE_S
            return
        time.sleep(_GRACE_S)
        if self._closed.is_set() or number != self._number:  # just in time
            return
        found = {rank: self._board.read(number, rank) for rank in range(self._world_size)}
        there = {rank: results for rank, results in found.items() if results is not None}
        missing = set(found) - there.keys()
        if not missing:
            return
        # The disk that the report is written to may be what hangs.
        threading.Timer(_WRITE_S, os._exit, [1]).start()
        self._give_up(number, there, self._silence(number, missing))
        sys.stdout.flush()
        self._board.mark(_END, 0)
        time.sleep(
            3 * _LOOK_S
        )  # the store may end with this process, and the others look for the mark
        os._exit(1)

    def _silence(self, number: int, missing: set[int]) -> str:
        """What to say of ranks without results: who is gone, or else who is stuck."""
        stuck = {rank for rank in missing if self._board.is_marked(_HANGS, number, rank)}
        gone, name = sorted(missing - stuck), self._names[number]
        # Where some are gone, the others are stuck because they wait for them.
        who = name_ranks(gone or sorted(stuck))
        if number == 0:
            return f"{who} did not arrive within {self._timeout_s:g} s: {_ABSENT}"
        if gone:
            return f"{who} did not answer within {self._timeout_s:g} s in {name}: {_GONE}"
        return f"{who} did not end {name} within {self._timeout_s:g} s: {_STUCK}"

    def _leave(self) -> NoReturn:
        if not self._closed.is_set():
            line = f"rank {self._rank}: error: rank 0 no longer answers"
            print(line, file=sys.stderr, flush=True)
        os._exit(1)
