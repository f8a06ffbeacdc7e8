"""Ranks that fill a table together agree every few seconds: whether all are done, or one cannot go on.

Parts are equal up to chance, but ranks take unequal time. None waits in a collective for longer than another
takes for a round and a chunk, however long the fill is, and a signal that only one rank has got stops all,
as does a lack of memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import final

from inbatch.guide.base import Process

ROUND_S = 2.0
# Of one rank; the largest holds for all.
_DONE, _BUSY, _STOPPED, _NO_MEMORY = range(4)


@final
class Rounds:
    """The agreement during one fill.

    Args:
        process: one of those that fill.
        asked: whether this process was asked to stop.
    """

    def __init__(self, process: Process, asked: Callable[[], bool]) -> None:
        self._most, self._asked = process.most, asked
        self._begun_s = time.monotonic()
        self.stopped = False
        self.out_of_memory = False  # on one of the ranks

    def go_on(self) -> bool:
        """False where all ranks stop; called after each chunk, and agrees once in a round."""
        if time.monotonic() - self._begun_s >= ROUND_S:
            self._agree(_BUSY)
        return not self.stopped

    def finish(self) -> bool:
        """Wait until all ranks are done or stop; False where they stop."""
        while not self.stopped and self._agree(_DONE) == _BUSY:
            pass
        return not self.stopped

    def give_up(self) -> None:
        """All ranks stop, since this one lacks memory; called in place of `finish`."""
        if not self.stopped:
            self._agree(_NO_MEMORY)

    def _agree(self, state: int) -> int:
        agreed = self._most(max(state, _STOPPED) if self._asked() else state)
        self.stopped = agreed >= _STOPPED
        self.out_of_memory = agreed == _NO_MEMORY
        self._begun_s = time.monotonic()
        return agreed
