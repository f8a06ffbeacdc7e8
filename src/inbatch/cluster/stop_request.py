"""Signals that ask a process to stop.

A signal only leaves a note. Saving inside a handler deadlocks where ranks get the signal at different
moments: one would be in the checkpoint's barrier, another in the gradients' all-reduce.

Until the first optimizer step is done there is nothing to save, and a process leaves at once. It may then
be inside a call that runs no Python for minutes, as where ranks meet or kernels are compiled, so that no
handler of Python's runs either. A thread is told of the signal by the system, and ends the process.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
# For the main thread to leave in order; Lightning ends it after 5 s without its ranks.
GRACE_S = 4.0


class StopRequest:
    """Notes signals that ask this process to stop. For the main thread, which alone can set handlers.

    Signals are noted from the start of the context on, and after it too, unless they are ignored.

    Args:
        leave: {name of a signal} -> exit code; ends a process that is asked to stop before `begin`. It
            is called in a thread. None to note only, from the start.
    """

    def __init__(self, leave: Callable[[str], int] | None = None) -> None:
        self.number = 0  # of the first signal; 0 for none
        self.pass_on: Callable[[int], None] = lambda number: None  # to processes of this one
        self._leave = leave
        self._state: Literal["starting", "leaving", "begun"] = "starting" if leave else "begun"
        self._lock = threading.RLock()  # of the state; a handler may interrupt its holder
        self._code: int | None = None  # to exit with
        self._decided = threading.Event()
        self._pid = os.getpid()
        # The system writes the numbers of signals into it.
        self._signalled: socket.socket | None = None

    def __enter__(self) -> StopRequest:
        for number in SIGNALS:
            signal.signal(number, self._note)
        if self._state == "starting":
            read, self._signalled = socket.socketpair()
            self._signalled.setblocking(False)
            _keep_from_children()
            signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(read,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._state != "leaving":
            self._stop_watching()

    def begin(self) -> None:
        """Only note signals from now on, since there is something to save."""
        with self._lock:
            if self._state == "leaving":  # the handler is about to run
                return
            self._state = "begun"
        self._stop_watching()

    def ignore(self) -> None:
        """Ignore signals after training: they must not end the process that writes the results."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self.begin()

    def _stop_watching(self) -> None:
        if self._signalled is not None:
            signal.set_wakeup_fd(-1)
            self._signalled.close()  # ends the thread
            self._signalled = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.number, self.number or number
        if not again and os.getpid() == self._pid and self._is_leaving():
            self._decided.wait()
            self.pass_on(number)  # to what has been started since
            raise SystemExit(self._code)

    def _is_leaving(self) -> bool:
        with self._lock:
            if self._state == "starting":
                self._state = "leaving"
            return self._state == "leaving"

    def _watch(self, read: socket.socket) -> None:
        """Wait for the first signal that this object handles."""
        assert self._leave is not None
        with read:
            while numbers := read.recv(64):
                for number in numbers:
                    ours = number in SIGNALS and signal.getsignal(number) == self._note
                    if ours and self._is_leaving():
                        try:
                            self._code = self._leave(signal.Signals(number).name)
                            self.pass_on(number)
                        finally:
                            self._decided.set()
                        time.sleep(GRACE_S)
                        os._exit(self._code)


@cache
def _keep_from_children() -> None:
    """Keep signals of forked processes out of this one."""
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


class Preempted(Exception):  # noqa: N818 - nothing went wrong
    """A run has stopped before its end and left a checkpoint.

    Args:
        signal_name: of the signal that asked for it.
        step: optimizer steps done.
        checkpoint: path that it resumes from.
        rank: of this process.
    """

    def __init__(self, *, signal_name: str, step: int, checkpoint: Path, rank: int) -> None:
        super().__init__(f"stopped by {signal_name} after step {step}, which {checkpoint} holds")
        self.rank = rank
