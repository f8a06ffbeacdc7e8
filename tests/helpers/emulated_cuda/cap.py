"""A run whose device has little memory left from some step on."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Cap(Callback):
    """Lowers the cap of the emulated device before a step.

    Args:
        room: bytes that are left beside what is held then; None for no cap.
        step: optimizer steps before.

    Attributes:
        taken: the most bytes that a step has needed beside what was held before it.
    """

    def __init__(self, room: float | None, *, step: int = 1) -> None:
        self.room, self.step, self.taken = room, step, 0
        self._held = 0

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Lower the cap."""
        device = trainer.strategy.root_device.index
        torch.cuda.reset_peak_memory_stats(device)
        self._held = torch.cuda.memory_allocated(device)
        if self.room is not None and trainer.global_step == self.step:
            torch.ops.emulated_cuda.set_cap(device, self._held + int(self.room))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """See what the step has taken."""
        peak = torch.cuda.max_memory_allocated(trainer.strategy.root_device)
        self.taken = max(self.taken, peak - self._held)
