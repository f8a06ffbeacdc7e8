"""Ends a run that is asked to stop: a checkpoint of the last step, the same on all ranks.

A signal only leaves a note. Saving inside a handler deadlocks where ranks get the signal at different
moments: one would be in the checkpoint's barrier, another in the gradients' all-reduce. So the ranks
agree at the end of an optimizer step, all save, and all leave. Slurm's part is in `inbatch.requeue`.

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
from typing import Any, Literal, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.optim import Optimizer

from inbatch.callbacks.checkpoints import LAST, Checkpoints
from inbatch.callbacks.step_report import Watched
from inbatch.gather import PendingMax

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
# For the main thread to leave in order; Lightning ends it after 5 s without its ranks.
GRACE_S = 4.0


class StopRequest:
    """Whether this process was asked to stop. For the main thread, which alone can set signal handlers.

    Signals are noted from entering the context on, and go on being noted, or ignored, after it.

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
        """From now on there is something to save, and signals are only noted."""
        with self._lock:
            if self._state == "leaving":  # the handler is about to run
                return
            self._state = "begun"
        self._stop_watching()

    def ignore(self) -> None:
        """A signal that comes after training must not end the process that writes the results."""
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
        """Wait for the first signal that is this object's to handle."""
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
    """Signals of forked processes are not this one's."""
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


class Preempted(Exception):  # noqa: N818 - nothing went wrong
    """A run has stopped before its end and left a checkpoint.

    Args:
        signal_name: what asked for it.
        step: optimizer steps done.
        checkpoint: where it goes on from.
        rank: of this process.
    """

    def __init__(self, *, signal_name: str, step: int, checkpoint: Path, rank: int) -> None:
        super().__init__(f"stopped by {signal_name} after step {step}, which {checkpoint} holds")
        self.rank = rank


class Preemption(Callback):
    """Stops all ranks after the same optimizer step once one of them has noted a signal.

    Runs after evaluation, logging and `Checkpoints`, so that a resumed run finds the step complete.
    The ranks agree by one all-reduce of an integer, read a step after it was sent: the host never
    waits for it. From the signal to the end of training it so takes up to two steps, with their
    evaluation if one is due, and a checkpoint. A request in the last step is not followed.
    """

    def __init__(self, stop: StopRequest, checkpoints: Checkpoints, *, directory: Path) -> None:
        self._stop = stop
        self._checkpoints = checkpoints
        self._checkpoint = directory / LAST
        self._pending: PendingMax | None = None
        self._step = 0
        self._stopped_by = 0

    def take_signals(self, trainer: Trainer) -> None:
        """Keep SIGTERM from a new trainer, and pass signals on to the ranks that it will start.

        Lightning's handler runs a collective inside the handler. Lightning also agrees on SIGTERM before
        each step, for which the host waits for the device.
        """
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            self._stop.pass_on = launcher.kill

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where this start begins."""
        self._step = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """From the first step on, which is evaluated and saved before it ends, the ranks must agree."""
        self._stop.begin()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Agree after each optimizer step; save and end the loop where a rank was asked to stop."""
        step = trainer.global_step
        if step == self._step or step >= cast(Watched, pl_module).total_steps:
            return
        self._step = step
        self._stopped_by = self._agree(trainer)
        if self._stopped_by:
            if self._checkpoints.saved_step != step:
                self._checkpoints.save(trainer)
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Receive what is still under way, before the process group goes."""
        if self._pending is not None:
            self._pending.wait()
            self._pending = None

    def finish(self, trainer: Trainer) -> None:
        """After training: ignore signals from here on.

        Raises:
            Preempted: training has stopped before its end.
        """
        self._stop.ignore()
        if self._stopped_by:
            raise Preempted(
                signal_name=signal.Signals(self._stopped_by).name,
                step=trainer.global_step,
                checkpoint=self._checkpoint,
                rank=trainer.global_rank,
            )

    def _agree(self, trainer: Trainer) -> int:
        if trainer.world_size == 1:
            return self._stop.number
        sent, self._pending = (
            self._pending,
            PendingMax(self._stop.number, trainer.strategy.root_device),
        )
        return sent.wait() if sent is not None else 0
