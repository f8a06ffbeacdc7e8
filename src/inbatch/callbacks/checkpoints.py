"""Checkpoints: the last state, to resume from, written so that a kill never leaves half a file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from inbatch.callbacks.pauses import pause
from inbatch.files import put_in_place, remove, replaced_folder

LAST = "last.ckpt"


class Checkpoints(Callback):
    """Writes `last.ckpt` every N optimizer steps, after each epoch and where the run ends.

    Args:
        directory: where checkpoints go.
        every_steps: optimizer steps between checkpoints; None for the end of epochs only.
        keep: further checkpoints to keep as `step-<n>.ckpt`, newest first; 0 keeps `last.ckpt` alone.
    """

    def __init__(self, directory: Path, *, every_steps: int | None = None, keep: int = 0) -> None:
        self._directory = directory
        self._every_steps = every_steps
        self._keep = keep
        self.saved_step = 0  # of the newest checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run has just been saved."""
        self.saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save on the step grid, after the last batch of an epoch and where `max_steps` ends the run.

        The end of training would be too late for that: Lightning then has counted the epoch as whole.
        """
        step = trainer.global_step
        pl_module.trainer.datamodule.trained(batch.step)  # type: ignore[attr-defined]
        on_grid = bool(self._every_steps) and step % (self._every_steps or 1) == 0
        due = on_grid or step == trainer.max_steps
        if (due and step != self.saved_step) or trainer.is_last_batch:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write beside the old checkpoint, then put the new one in its place. Collective."""
        self.saved_step = trainer.global_step
        with pause(trainer, "save"):
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        last, fresh = self._directory / LAST, self._directory / f".{LAST}.new"
        trainer.save_checkpoint(fresh)
        if trainer.is_global_zero:
            put_in_place(fresh, last)
            if self._keep:
                self._keep_copy(last, trainer.global_step)
        trainer.strategy.barrier("checkpoint")

    def _keep_copy(self, last: Path, step: int) -> None:
        target = self._directory / f"step-{step:08d}.ckpt"
        if last.is_dir():
            with replaced_folder(target) as copy:
                shutil.copytree(last, copy, dirs_exist_ok=True)
        else:
            target.unlink(missing_ok=True)
            os.link(last, target)
        for old in sorted(self._directory.glob("step-*.ckpt"))[: -self._keep]:
            remove(old)
