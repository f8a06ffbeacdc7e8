"""A strategy of a user's own: Lightning's DDP, with gradients averaged by hand after the last backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy

from inbatch.encoder import Encoder
from inbatch.step.gradient_sync import AverageGradients, GradientSync
from inbatch.strategies import Strategy


class _NoWrapper(DDPStrategy):
    """Starts and joins the ranks, and leaves the module as it is."""

    def configure_ddp(self) -> None:
        """No wrapper: gradients are averaged at the end of the step."""

    def pre_backward(self, closure_loss: object) -> None:
        """Nothing to prepare."""


@final
@dataclass(frozen=True)
class AverageOnce(Strategy):
    """One all-reduce per parameter and step."""

    def lightning_strategy(
        self, *, accelerator: str, num_processes: int, num_nodes: int, clip_norm: float | None
    ) -> LightningStrategy | str:
        """DDP without its wrapper."""
        return _NoWrapper(process_group_backend="gloo")

    def gradient_sync(self, encoder: Encoder, trainer: Trainer) -> GradientSync:
        """Average after the last backward."""
        return AverageGradients(p for p in encoder.parameters() if p.requires_grad)
