"""Checkpoints: the last state, to resume from, written so that a kill never leaves half a file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from inbatch.callbacks.pauses import pause
from inbatch.errors import ConfigError
from inbatch.files import put_in_place, remove, replaced_folder, writing


class Checkpoints(Callback):
    """Writes the checkpoint `last` every N optimizer steps, after each epoch and at the end of the run.

    Args:
        last: path of the newest checkpoint.
        every_steps: optimizer steps between checkpoints; None for the end of epochs only.
        keep: earlier checkpoints to keep beside it as `step-<n>.ckpt`; 0 keeps the last one only.
    """

    def __init__(self, last: Path, *, every_steps: int | None = None, keep: int = 0) -> None:
        self.last = last
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
        fresh = self.last.with_name(f".{self.last.name}.new")
        try:
            with writing(self.last):
                trainer.save_checkpoint(fresh)
                if trainer.is_global_zero:
                    put_in_place(fresh, self.last)
                    if self._keep:
                        self._keep_copy(trainer.global_step)
        except ConfigError:
            remove(fresh)  # half of it, on a full disk
            raise
        trainer.strategy.barrier("checkpoint")

    def _keep_copy(self, step: int) -> None:
        last, target = self.last, self.last.with_name(f"step-{step:08d}.ckpt")
        if last.is_dir():
            with replaced_folder(target) as copy:
                shutil.copytree(last, copy, dirs_exist_ok=True)
        else:
            target.unlink(missing_ok=True)
            os.link(last, target)
        for old in sorted(last.parent.glob("step-*.ckpt"))[: -self._keep]:
            remove(old)
