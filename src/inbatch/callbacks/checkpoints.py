"""Checkpoints: the state to resume from. Each has its own name, so that a kill leaves the one before it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from inbatch.callbacks.pauses import pause
from inbatch.errors import ConfigError
from inbatch.files import put_in_place, remove, writing
from inbatch.folder.saved import (
    LAST,
    checkpoints_in,
    name_of_step,
    step_of_name,
    write_manifest,
)

RECORD = "inbatch"  # entry of a checkpoint: what run it is of
Record = dict[str, Any]


class Checkpoints(Callback):
    """Writes a checkpoint every N optimizer steps, after each epoch and at the end of the run.

    Args:
        folder: of the checkpoints, ``step-<n>.ckpt``; ``last.ckpt`` is a link to the newest.
        every_steps: optimizer steps between checkpoints; None for the end of epochs only.
        keep: earlier checkpoints to keep beside the newest.
        record: what to write down of the run, as plain values. Called on every rank.
        before, after: called on rank 0 before a checkpoint is written, and once it is there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_steps: int | None = None,
        keep: int = 1,
        record: Callable[[Trainer, LightningModule], Record] = lambda trainer, module: {},
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self.last = folder / LAST
        self._folder = folder
        self._every_steps = every_steps
        self._keep = keep
        self._make_record = record
        self._record: Record = {}
        self._before = before
        self._after = after
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

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the record."""
        self._record = self._make_record(trainer, pl_module)
        checkpoint[RECORD] = self._record

    def save(self, trainer: Trainer) -> None:
        """Write the state beside the others, and give it its name when it is complete. Collective."""
        self.saved_step = trainer.global_step
        with pause(trainer, "save"):
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            self._before()
        path = self._folder / name_of_step(trainer.global_step)
        fresh = self._folder / f".{path.name}.new"
        try:
            with writing(path):
                trainer.save_checkpoint(fresh)
                if trainer.is_global_zero:
                    self._put(fresh, path)
        except ConfigError:
            remove(fresh)  # half of it, on a full disk
            raise
        trainer.strategy.barrier("checkpoint")

    def _put(self, fresh: Path, path: Path) -> None:
        """Give a complete checkpoint its name, and remove those that are not to be kept."""
        if fresh.is_dir():
            write_manifest(fresh, self._record)
        put_in_place(fresh, path)
        _link(path, self.last)
        self._remove_others(path)
        self._after()

    def _remove_others(self, newest: Path) -> None:
        """Remove checkpoints that are too old, and those of later steps, which this run has left behind."""
        older, step = self._keep, step_of_name(newest) or 0
        for path in checkpoints_in(self._folder):
            at = step_of_name(path)
            if at == step:
                continue
            if at is not None and at < step and older:
                older -= 1
            else:
                remove(path)


def _link(path: Path, last: Path) -> None:
    """Point `last` to a checkpoint beside it, where the file system has links; nothing needs it."""
    fresh = last.with_name(f".{last.name}.{uuid.uuid4().hex[:12]}.new")
    try:
        os.symlink(path.name, fresh, target_is_directory=path.is_dir())
        if not last.is_symlink():
            remove(last)
        os.replace(fresh, last)
    except OSError:
        remove(fresh)
