"""A Ctrl-C, or the stop button of a notebook, while a function call trains."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

from inbatch.cluster.stop_request import Preempted, Saved


@final
class Interrupt:
    """Notes the first Ctrl-C once there is something to save; any other one raises KeyboardInterrupt.

    The process goes on afterwards, so no other signal is touched.
    """

    def __init__(self) -> None:
        self.number = 0  # SIGINT once it is noted
        self.pass_on: Callable[[int], None] = lambda number: None
        self.saved: Callable[[], Saved | None] = lambda: None
        self._may_note = False

    def begin(self) -> None:
        """The first step is done, so there is something to save."""
        self._may_note = True

    def end(self) -> None:
        """Training is over, and results are written."""
        self._may_note = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self._may_note or self.number:
            raise KeyboardInterrupt
        self.number = number
        print("Ctrl-C: saves after this step and stops; a second one stops at once", flush=True)


@contextmanager
def interruptible() -> Iterator[Interrupt | None]:
    """Let a Ctrl-C end the block by KeyboardInterrupt, with what is trained so far in a checkpoint.

    Gives None, and changes nothing, in threads and where the program has a handler of its own.
    """
    before: Any = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or (
        before is not signal.default_int_handler
    ):
        yield None
        return
    interrupt = Interrupt()
    signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    except Preempted as stopped:
        raise KeyboardInterrupt(f"{stopped}; the same call goes on from there") from None
    except SystemExit as left:  # Lightning's answer to a KeyboardInterrupt
        if isinstance(left.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)
