"""Ranks that fill a table together agree every few seconds: whether all are done, or one was asked to stop.

Parts are equal up to chance, but ranks take unequal time. None waits in a collective for longer than another
takes for a round and a chunk, however long the fill is, and a signal that only one rank has got stops all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import final

from inbatch.guide.base import Process

ROUND_S = 2.0
_DONE, _BUSY, _STOPPED = range(3)  # what is true of one rank is true of all from the largest on


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

    def _agree(self, state: int) -> int:
        agreed = self._most(_STOPPED if self._asked() else state)
        self.stopped = agreed == _STOPPED
        self._begun_s = time.monotonic()
        return agreed
