"""Looks, before anything is evaluated or saved, whether the run has diverged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from inbatch.callbacks.pauses import PauseWatcher
from inbatch.gather import local_part, max_over_ranks
from inbatch.step.finite import NonFiniteGradient


class NonFinite(Callback, PauseWatcher):
    """Ends a run before it evaluates or saves weights that are not finite."""

    def on_pause(self, trainer: Trainer, name: str) -> None:
        """Read what is under way, and look at the weights.

        Raises:
            NonFiniteGradient: the last gradient was not finite, or the weights after it are not.
        """
        module: Any = trainer.lightning_module
        module.watch.settle()
        local = [local_part(p.detach()) for p in module.encoder.parameters()]
        bad = int(not torch.stack([p.isfinite().all() for p in local if p.numel()]).all())
        if trainer.world_size > 1:
            (bad,) = max_over_ranks([bad], trainer.strategy.root_device)
        if bad:
            raise NonFiniteGradient(module.place, {})

    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Nothing."""
