"""Seconds that a step spends in each of its phases."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Phases:
    """Adds up host time per named phase; no device is synchronised."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._inside_s = 0.0  # of phases that have ended inside the one that runs

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of this context to a phase, less that of phases inside it."""
        before, self._inside_s = self._inside_s, 0.0
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._seconds[name] += seconds - self._inside_s
        self._inside_s = before + seconds

    def pop(self) -> dict[str, float]:
        """The sums since the last call."""
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds
