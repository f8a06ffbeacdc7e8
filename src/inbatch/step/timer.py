"""Seconds that a step spends in each of its phases.

On a GPU the host runs ahead of the device, so phases are told apart by events in the device's own
order. Nothing waits for them: a phase is counted by the first step that finds it past.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch


class Mark(Protocol):
    """A moment in the work of a device."""

    def is_past(self) -> bool:
        """True once the device has come to it."""

    def seconds_until(self, later: Any) -> float:
        """Time to a later mark of the same kind; both are past."""


class HostMark:
    """A moment of the host, which is that of the device where the device is the host."""

    def __init__(self) -> None:
        self.time_s = time.perf_counter()

    def is_past(self) -> bool:
        """Always."""
        return True

    def seconds_until(self, later: HostMark) -> float:
        """Difference of two times."""
        return later.time_s - self.time_s


class DeviceMark:
    """A place in the current CUDA stream."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def is_past(self) -> bool:
        """True once the stream has come to it; does not wait."""
        return bool(self.event.query())

    def seconds_until(self, later: DeviceMark) -> float:
        """Time between two places of the stream."""
        return float(self.event.elapsed_time(later.event)) / 1e3


class _Span(NamedTuple):
    begin: Mark
    end: Mark
    name: str
    around: str | None  # phase that the span is no part of, though inside


class StepTimer:
    """Adds up time per named phase.

    Args:
        mark: makes a mark at the place where it is called: `HostMark` or `DeviceMark`.
    """

    def __init__(self, mark: Callable[[], Mark] = HostMark) -> None:
        self._mark = mark
        self._running: list[str] = []
        self._spans: deque[_Span] = deque()

    @classmethod
    def on(cls, device: torch.device) -> StepTimer:
        """A timer in the order of a device's work."""
        return cls(DeviceMark if device.type == "cuda" else HostMark)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of this context to a phase, less that of phases inside it."""
        around = self._running[-1] if self._running else None
        self._running.append(name)
        begin = self._mark()
        try:
            yield
        finally:
            self._running.pop()
        self._spans.append(_Span(begin, self._mark(), name, around))

    def pop(self) -> dict[str, float]:
        """The sums of what has ended, and is past on the device, since the last call."""
        seconds: dict[str, float] = defaultdict(float)
        while self._spans and self._spans[0].end.is_past():
            span = self._spans.popleft()
            length = span.begin.seconds_until(span.end)
            seconds[span.name] += length
            if span.around is not None:
                seconds[span.around] -= length
        return dict(seconds)
