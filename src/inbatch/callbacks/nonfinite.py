"""Looks, before anything is evaluated or saved, whether the run has diverged."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

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
        trained = chain(module.encoder.parameters(), module.loss_parameters.parameters())
        parts = (_part(parameter).detach() for parameter in trained)
        found = [part.isfinite().all() for part in parts if part.numel()]
        bad = int(bool(found) and not torch.stack(found).all())
        if trainer.world_size > 1:
            (bad,) = max_over_ranks([bad], trainer.strategy.root_device)
        if bad:
            raise NonFiniteGradient(module.place, {})

    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Nothing."""


def _part(parameter: Tensor) -> Tensor:
    """What this rank holds of a parameter; DeepSpeed's stage 3 leaves the parameter itself empty."""
    part: Tensor = getattr(parameter, "ds_tensor", local_part(parameter))
    return part
