"""Signals that ask a process to stop.

A signal only leaves a note. Saving inside a handler deadlocks where ranks get the signal at different
moments: one would be in the checkpoint's barrier, another in the gradients' all-reduce.

Until the first optimizer step is done there is nothing to save, and a process leaves at once; later it does
so at a second Ctrl-C. It may then be inside a call that runs no Python for minutes, as where ranks meet or
kernels are compiled, so that no handler of Python's runs either. A thread is told of the signal by the
system, and ends the process.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
CTRL_C = "Ctrl-C"
EXIT_INTERRUPTED = 128 + signal.SIGINT  # as a shell says it
GO_ON = "the same command resumes from there"
# For the main thread to leave in order; Lightning ends it after 5 s without its ranks.
GRACE_S = 4.0


def signal_name(number: int) -> str:
    """The name of a signal as users know it."""
    return CTRL_C if number == signal.SIGINT else signal.Signals(number).name


class Saved(NamedTuple):
    """What a run leaves where it stops."""

    step: int
    checkpoint: Path

    def __str__(self) -> str:
        """In words."""
        return f"{self.checkpoint} holds step {self.step}"


class Stop(Protocol):
    """Where a run learns that it is asked to stop."""

    number: int  # of the signal that asks for it; 0 for none
    pass_on: Callable[[int], None]  # to processes of this one
    saved: Callable[[], Saved | None]  # what is there to go on from

    def begin(self) -> None:
        """From now on there is something to save."""

    def end(self) -> None:
        """After training, while the results are written."""


class StopRequest:
    """Notes signals that ask this process to stop. For the main thread, which alone can set handlers.

    Signals are noted from the start of the context on, and after it too, except a Ctrl-C. One that is
    ignored where the context starts, as a Ctrl-C is in the background of a script, stays so.

    Args:
        leave: {name of a signal} -> exit code; ends a process that is asked to stop before `begin`. It
            is called in a thread. None to note only, from the start.
        say: prints what follows from a Ctrl-C. It is called in a thread.
        go_on: how to go on after a stop, in words.
    """

    def __init__(
        self,
        leave: Callable[[str], int] | None = None,
        *,
        say: Callable[[str], None] = lambda text: None,
        go_on: str = GO_ON,
    ) -> None:
        self.number = 0  # of the first signal; 0 for none
        self.pass_on: Callable[[int], None] = lambda number: None  # to processes of this one
        self.saved: Callable[[], Saved | None] = lambda: None  # what is there to go on from
        self._leave = leave
        self._say = say
        self._go_on = go_on
        self._state: Literal["starting", "begun", "ending", "leaving"]
        self._state = "starting" if leave else "begun"
        self._lock = threading.RLock()  # of the state; a handler may interrupt its holder
        self._had_begun = False  # when it was made to leave
        self._interrupts = 0  # seen by the handler
        self._raised = False
        self._code: int | None = None  # to exit with
        self._decided = threading.Event()
        self._pid = os.getpid()
        self._relay: Callable[[int], None] | None = None
        # The system writes the numbers of signals into it.
        self._signalled: socket.socket | None = None
        self._keyboard: Any = None  # handler of a Ctrl-C before

    def __enter__(self) -> StopRequest:
        self._keyboard = signal.getsignal(signal.SIGINT)
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)
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
        if self._state == "leaving":
            return
        signal.signal(signal.SIGINT, self._keyboard)
        signal.set_wakeup_fd(-1)
        if self._signalled is not None:
            self._signalled.close()  # ends the thread

    def begin(self) -> None:
        """Only note signals from now on, since there is something to save."""
        with self._lock:
            if self._state == "starting":  # not leaving: the handler is about to run
                self._state = "begun"

    def end(self) -> None:
        """After training: go on to note, while the results are written."""
        with self._lock:
            if self._state != "leaving":
                self._state = "ending"

    @contextmanager
    def relayed_to(self, process: Callable[[int], None]) -> Iterator[None]:
        """Note signals and hand each of them to a process that does what they ask for."""
        self.begin()
        self._relay = process
        try:
            yield
        finally:
            self._relay = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # of a worker, which ends with this process
            return
        self.number = self.number or number
        if self._relay is not None:
            self._relay(number)
            return
        self._interrupts += number == signal.SIGINT
        if self._is_leaving(again=self._interrupts > 1) and not self._raised:
            self._raised = True
            self._decided.wait()
            if not self._had_begun:
                self.pass_on(number)  # to what has been started since
            raise SystemExit(self._code)

    def _is_leaving(self, *, again: bool) -> bool:
        with self._lock:
            if self._state == "starting" or (again and self._state != "leaving"):
                self._had_begun, self._state = self._state != "starting", "leaving"
            return self._state == "leaving"

    def _watch(self, read: socket.socket) -> None:
        """Follow the signals that this object handles: the handler may not run for a while."""
        interrupts = 0
        with read:
            while numbers := read.recv(64):
                for number in numbers:
                    ours = number in SIGNALS and signal.getsignal(number) == self._note
                    if not ours or self._relay is not None:
                        continue
                    interrupts += number == signal.SIGINT
                    if self._is_leaving(again=interrupts > 1):
                        self._end(number, read)
                    elif number == signal.SIGINT:
                        done = "the results are being written"
                        doing = done if self._state == "ending" else "stopping after this step"
                        self._say(f"{doing}; Ctrl-C again leaves at once")

    def _end(self, number: int, read: socket.socket) -> NoReturn:
        try:
            if self._had_begun or self._leave is None:
                saved = self.saved()
                left = "nothing is saved" if saved is None else f"{saved}; {self._go_on}"
                self._say(f"stopped by {CTRL_C} at once; {left}")
                self._code = EXIT_INTERRUPTED
                self.pass_on(signal.SIGKILL)
            else:
                self._code = self._leave(signal_name(number))
                self.pass_on(number)
        finally:
            self._decided.set()
        _wait_for_interrupt(read)
        os._exit(self._code)


def _wait_for_interrupt(read: socket.socket) -> None:
    """Wait for one more Ctrl-C, or for the time that the main thread has to leave in order."""
    deadline = time.monotonic() + GRACE_S
    while (left := deadline - time.monotonic()) > 0:
        if select.select([read], [], [], left)[0] and signal.SIGINT in read.recv(64):
            return


@cache
def _keep_from_children() -> None:
    """Keep signals of forked processes out of this one."""
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


class Preempted(Exception):  # noqa: N818 - nothing went wrong
    """A run has stopped before its end and left a checkpoint.

    Args:
        number: of the signal that asked for it.
        saved: the step that it has stopped after, and the checkpoint that it resumes from.
        rank: of this process.
    """

    def __init__(self, *, number: int, saved: Saved, rank: int) -> None:
        name = signal_name(number)
        super().__init__(
            f"stopped by {name} after step {saved.step}, which {saved.checkpoint} holds"
        )
        self.number = number
        self.rank = rank
