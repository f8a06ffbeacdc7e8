"""Has the guide's store filled as training gets to further texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from inbatch.callbacks.pauses import pause
from inbatch.cluster.stop_request import Stop
from inbatch.guide import StoredGuide


class GuideFill(Callback):
    """Pauses training where the next batches have texts that are not embedded yet.

    An optimizer step ahead: ranks that are asked to stop meanwhile take that step, agree, and leave. Acts
    after `Checkpoints`, which has the data module count the batch, and before `Preemption`.

    Args:
        guide: of the run.
        batches_done: gives the batches that have been trained on.
        accumulate: batches of an optimizer step.
        stop: where signals are noted; None where they are not.
    """

    def __init__(
        self,
        guide: StoredGuide,
        batches_done: Callable[[], int],
        *,
        accumulate: int,
        stop: Stop | None,
    ) -> None:
        self._guide = guide
        self._batches_done = batches_done
        self._ahead = 2 * accumulate
        self._stop = stop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that resumes needs more than the first portion, and finds most of it stored."""
        self._reach(trainer, lambda: False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Embed what the step after the next one needs."""
        if not trainer.should_stop:
            self._reach(trainer, self._asked)

    def _reach(self, trainer: Trainer, asked: Callable[[], bool]) -> None:
        needed = self._batches_done() + self._ahead
        if not self._guide.has(needed):
            with pause(trainer, "guide"):
                self._guide.reach(needed, asked)

    def _asked(self) -> bool:
        return self._stop is not None and self._stop.number != 0
