"""The part of a strategy in a training step: accumulate locally, reduce once.

Scale contract, the strategy's part: gradients are averaged over ranks, once per optimizer step, after
the backward that is marked as last. Everything in `conf/strategy/` is a final subclass
of `Strategy`; it is given the encoder, the trainer and the device mesh, never the LightningModule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy as LightningStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from inbatch.encoder import Encoder
from inbatch.step.gradient_sync import GradientSync


class Strategy(ABC):
    """How a run uses its processes."""

    #: gradient clipping is done by the engine's own configuration
    clips_gradients: bool = False
    #: values of `precision` that it cannot compute in
    refuses: tuple[str, ...] = ()
    #: package that it needs, which the extra of that name installs
    package: str | None = None

    @property
    def collective_forward(self) -> bool:
        """Forward or backward of the encoder runs collectives, so ranks must run equally many chunks."""
        return False

    @property
    def shards_parameters(self) -> bool:
        """Parameters are divided over the ranks."""
        return False

    @property
    def shards_optimizer(self) -> bool:
        """Optimizer state is divided over the ranks."""
        return False

    @property
    def offloads_optimizer(self) -> bool:
        """Optimizer state is held by the host, not by the device."""
        return False

    @property
    def saves_shards(self) -> bool:
        """A checkpoint is a folder of the ranks' shards, which it alone reads, on as many ranks."""
        return False

    def resolve(self, world_size: int) -> Strategy:
        """The strategy for a number of processes: this one."""
        return self

    @abstractmethod
    def lightning_strategy(
        self, *, accelerator: str, num_processes: int, num_nodes: int, clip_norm: float | None
    ) -> LightningStrategy | str:
        """The Lightning strategy; `num_processes` is per node."""

    @abstractmethod
    def gradient_sync(self, encoder: Encoder, trainer: Trainer) -> GradientSync:
        """The gradient synchronisation of an encoder that a trainer has set up for training."""

    def shard(  # noqa: B027
        self, encoder: Encoder, mesh: DeviceMesh | None, *, mixed: bool = False
    ) -> None:
        """Replace parameters by shards on the ranks of `mesh`, before the optimizer sees them.

        Args:
            encoder: with float32 parameters if `mixed`.
            mesh: the ranks.
            mixed: whether matrices may be gathered in bf16, since forwards run under autocast to it.
        """

    def gradient_norm(self, trainer: Trainer) -> Tensor | None:
        """Norm that the strategy has clipped by, if it clips; None if the LightningModule clips."""
        return None

    def full_state(self, encoder: Encoder, *, rank: int) -> dict[str, Tensor]:
        """The encoder's whole state dict, on the CPU of rank 0; empty elsewhere.

        Collective where parameters are sharded, so every rank calls it.
        """
        if rank != 0:
            return {}
        return {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
