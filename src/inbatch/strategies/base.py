"""The part of a strategy in a training step: accumulate locally, reduce once.

Scale contract, the strategy's part: gradients are averaged over ranks, once per optimizer step, after
the backward that is marked as last. Everything in `conf/strategy/` is a final subclass
of `Strategy`; it is given the encoder, the trainer and the device mesh, never the LightningModule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy as LightningStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from inbatch.encoder import Encoder
from inbatch.step.gradient_sync import GradientSync
from inbatch.step.loss_parameters import LossParameters, clamp_whole


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

    def place(self, parameters: LossParameters, mesh: DeviceMesh | None) -> None:  # noqa: B027
        """Bring the parameters of losses, which are never divided, in the form of those in shards."""

    def limit(self, parameter: nn.Parameter, most: float) -> None:
        """Bring a loss's parameter down to its largest value, after an optimizer step."""
        clamp_whole(parameter, most)

    def gradient_norm(self, trainer: Trainer) -> Tensor | None:
        """Norm that the strategy has clipped by, if it clips; None if the LightningModule clips."""
        return None

    def weights(self, encoder: Encoder) -> dict[str, Tensor]:
        """This rank's parts of the parameters that train, by name; to change them changes the encoder.

        Whoever changes them calls `forget_gathered` before and after.
        """
        return {n: p.detach() for n, p in encoder.named_parameters() if p.requires_grad}

    def forget_gathered(self, encoder: Encoder) -> None:  # noqa: B027
        """Free parameters that were gathered from `weights`, so that the next forward gathers them anew.

        Collective.
        """

    def for_checkpoint(
        self, encoder: Encoder, parts: Mapping[str, Tensor], *, rank: int
    ) -> dict[str, Tensor]:
        """What a checkpoint holds of values that are divided as `weights` are, on the CPU. Collective.

        Whole tensors, on rank 0, where a checkpoint is a whole file; else each rank's parts.
        """
        return {name: part.cpu() for name, part in parts.items()} if rank == 0 else {}

    def from_checkpoint(self, encoder: Encoder, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This rank's parts of what `for_checkpoint` has made, on the CPU."""
        return dict(saved)

    def full_state(self, module: nn.Module, *, rank: int) -> dict[str, Tensor]:
        """The whole state dict of the encoder, or of `LossParameters`, on the CPU of rank 0; empty elsewhere.

        Collective where parameters are sharded, so every rank calls it.
        """
        if rank != 0:
            return {}
        return {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
