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

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of this context to a phase."""
        start = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - start

    def pop(self) -> dict[str, float]:
        """The sums since the last call."""
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds
