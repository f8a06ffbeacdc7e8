"""Ends a run that is asked to stop: a checkpoint of the last step, the same on all ranks.

A signal only leaves a note. Saving inside a handler deadlocks where ranks get the signal at different
moments: one would be in the checkpoint's barrier, another in the gradients' all-reduce. So the ranks
agree at the end of an optimizer step, all save, and all leave. Slurm's part is in `inbatch.cluster.requeue`.
"""

from __future__ import annotations

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from inbatch import compat
from inbatch.callbacks.checkpoints import Checkpoints
from inbatch.cluster.stop_request import Preempted, Saved, Stop
from inbatch.gather import PendingMax
from inbatch.step.report import Watched
from inbatch.strategies.failed_rank import signal_ranks


class Preemption(Callback):
    """Stops all ranks after the same optimizer step once one of them has noted a signal, as of a Ctrl-C.

    Runs after evaluation, logging and `Checkpoints`, so that a resumed run finds the step complete.
    The ranks agree by one all-reduce of an integer, read a step after it was sent: the host never
    waits for it. From the signal to the end of training it so takes up to two steps, with their
    evaluation if one is due, and a checkpoint. A request in the last step is not followed.
    """

    def __init__(self, stop: Stop, checkpoints: Checkpoints) -> None:
        self._stop = stop
        self._checkpoints = checkpoints
        self._pending: PendingMax | None = None
        self._step = 0
        self._stopped_by = 0
        stop.saved = self._saved

    def take_signals(self, trainer: Trainer) -> None:
        """Keep SIGTERM from a new trainer, and pass signals on to the ranks that it will start.

        Lightning's handler runs a collective inside the handler. Lightning also agrees on SIGTERM before
        each step, for which the host waits for the device.
        """
        compat.leave_signals_alone(trainer)
        self._stop.pass_on = signal_ranks

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
        """After training: signals change nothing from here on.

        Raises:
            Preempted: training has stopped before its end.
        """
        self._stop.end()
        if self._stopped_by:
            saved = Saved(trainer.global_step, self._checkpoints.last)
            raise Preempted(number=self._stopped_by, saved=saved, rank=trainer.global_rank)

    def _saved(self) -> Saved | None:
        last = self._checkpoints.last
        return Saved(self._checkpoints.saved_step, last) if last.exists() else None

    def _agree(self, trainer: Trainer) -> int:
        if trainer.world_size == 1:
            return self._stop.number
        sent, self._pending = (
            self._pending,
            PendingMax(self._stop.number, trainer.strategy.root_device),
        )
        return sent.wait() if sent is not None else 0
