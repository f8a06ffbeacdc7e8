"""What a strategy owes to a training step: accumulate locally, reduce once.

Scale contract, the strategy's part: gradients are averaged over ranks, once per optimizer step, after
the backward that is marked as last. Everything in `conf/strategy/` is a final subclass of `Strategy`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from lightning.pytorch.strategies import Strategy as LightningStrategy
from torch import Tensor

if TYPE_CHECKING:
    from inbatch.run.module import BiEncoderModule


class GradientSync(ABC):
    """Decides for each backward of an optimizer step whether its gradients are reduced over ranks."""

    def start(self) -> None:  # noqa: B027 - most strategies have nothing to do here
        """Called before the first backward of an optimizer step."""

    @abstractmethod
    def backward(self, last: bool) -> AbstractContextManager[None]:
        """Around one chunk's forward and backward."""

    def finish(self) -> None:  # noqa: B027
        """Called after the last backward of an optimizer step."""


class NoSync(GradientSync):
    """One process: nothing to reduce."""

    @contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        """Do nothing."""
        yield


class Strategy(ABC):
    """How a run uses its processes."""

    #: forward or backward of the encoder runs collectives, so ranks must run equally many chunks
    collective_forward: bool = False
    #: gradient clipping is done by the engine's own configuration
    clips_gradients: bool = False
    #: values of `precision` that it cannot compute in
    refuses: tuple[str, ...] = ()

    def resolve(self, world_size: int) -> Strategy:
        """The strategy for a number of processes: this one."""
        return self

    @abstractmethod
    def lightning_strategy(
        self, *, accelerator: str, num_processes: int, num_nodes: int, clip_norm: float | None
    ) -> LightningStrategy | str:
        """The Lightning strategy; `num_processes` is per node."""

    @abstractmethod
    def gradient_sync(self, module: BiEncoderModule) -> GradientSync:
        """The gradient synchronisation of a module that is set up for training."""

    def shard(self, module: BiEncoderModule) -> None:  # noqa: B027
        """Replace parameters by shards, before the optimizer sees them."""

    def gradient_norm(self, module: BiEncoderModule) -> Tensor | None:
        """Norm that the engine has clipped by, where it clips; None where the module does."""
        return None

    def full_state(self, module: BiEncoderModule) -> dict[str, Tensor]:
        """The encoder's whole state dict, on the CPU of rank 0; empty elsewhere.

        Collective where parameters are sharded, so every rank calls it.
        """
        if module.global_rank != 0:
            return {}
        return {name: tensor.detach().cpu() for name, tensor in module.encoder.state_dict().items()}
