"""Files that other nodes have written, which network file systems show after a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from inbatch.errors import ConfigError
from inbatch.guide.base import Process

T = TypeVar("T")

_VISIBLE_S = 90.0  # network file systems show new files on other nodes after up to a minute


def visible_until(process: Process) -> float:
    """The end of the wait, by `time.monotonic`; at once for a process that is alone."""
    return time.monotonic() + (_VISIBLE_S if process.world_size > 1 else 0.0)


def once_visible(
    look: Callable[[], T | None],
    missing: Callable[[], ConfigError],
    *,
    deadline_s: float,
    every_s: float,
) -> T:
    """What `look` finds.

    Args:
        look: returns None while something is not there.
        missing: gives the error.
        deadline_s: see `visible_until`.
        every_s: seconds between two looks.

    Raises:
        ConfigError: it does not become visible in time.
    """
    while (found := look()) is None:
        if time.monotonic() >= deadline_s:
            raise missing()
        time.sleep(every_s)
    return found
