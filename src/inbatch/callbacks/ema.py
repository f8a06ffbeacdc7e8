"""The exponential moving average of the weights (`ema.decay`), which is what is evaluated and exported.

Lightning's `WeightAveraging` would not do: it copies the whole module on every rank before a strategy shards
it, and puts the average into a checkpoint's ``state_dict``. Here each rank averages its own parts in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from inbatch.encoder import Encoder
from inbatch.strategies import Strategy

STATE = "ema"  # entry of a checkpoint


def share_of_newest(decay: float, count: int) -> float:
    """The share of the newest of `count` weights in their average: ``(1 - d) / (1 - d^count)``.

    With it the average of steps 1 to t has shares in proportion to ``d^(t - i)`` that add up to one, from the
    first step on, and none of the weights before it: Adam's correction of its bias (Kingma & Ba 2015,
    section 3). It falls from 1 to ``1 - d``.
    """
    return (1.0 - decay) / (1.0 - decay**count)


class AveragedWeights(Callback):
    """Averages the weights after each optimizer step.

    ``average <- average + s_t * (weights - average)`` with ``s_t`` of `share_of_newest`, in the precision of
    the weights, float32 or float64. Memory: the weights once more, divided over ranks where those are.

    Args:
        decay: of the average, between 0 and 1.
        strategy: that holds the weights.
        encoder: whose parameters that train are averaged; others never change.
    """

    def __init__(self, decay: float, strategy: Strategy, encoder: Encoder) -> None:
        self._decay = decay
        self._strategy = strategy
        self._encoder = encoder
        self._average: dict[str, Tensor] = {}  # this rank's parts; empty before the first step
        self._count = 0  # of weights in the average
        self._step = 0
        self._saved: Mapping[str, Any] | None = (
            None  # of a checkpoint, until the weights are in place
        )

    @property
    def parts(self) -> Mapping[str, Tensor]:
        """This rank's parts of the average, by the name of the parameter; none before the first step."""
        return self._average

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the average of a checkpoint."""
        self._step = trainer.global_step
        if self._saved is None:
            return
        parts = self._strategy.from_checkpoint(self._encoder, self._saved["weights"])
        weights = self._strategy.weights(self._encoder)
        self._average = {
            name: torch.empty_like(weight).copy_(parts[name]) for name, weight in weights.items()
        }
        self._count, self._saved = self._saved["count"], None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the weights in, if the batch has ended a step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self._count += 1
        weights = self._strategy.weights(self._encoder)
        if not self._average:
            self._average = {name: weight.clone() for name, weight in weights.items()}
            return
        update = get_ema_multi_avg_fn(1.0 - share_of_newest(self._decay, self._count))
        update([self._average[name] for name in weights], list(weights.values()), self._count)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the encoder compute with the average in the block. Collective.

        Afterwards it has its own weights again, to the last bit.
        """
        if not self._average:
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Exchange weights and average, tensor by tensor."""
        self._strategy.forget_gathered(self._encoder)
        for name, weight in self._strategy.weights(self._encoder).items():
            own = weight.clone()
            weight.copy_(self._average[name])
            self._average[name].copy_(own)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average. Collective."""
        parts = {}
        if self._average:
            rank = trainer.global_rank
            parts = self._strategy.for_checkpoint(self._encoder, self._average, rank=rank)
        checkpoint[STATE] = {"count": self._count, "weights": parts}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what is saved until the strategy has its weights in place."""
        saved = checkpoint.get(STATE)
        self._saved = saved if saved and saved["count"] else None
