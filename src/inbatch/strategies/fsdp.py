"""Fully sharded data parallelism (FSDP2): parameters, gradients and optimizer state in shards.

In mixed bf16, unless the backbone is compiled, the matrices of the transformer layers are cast before they
are gathered, which halves what travels. Autocast would cast them afterwards: values are the same, and so
are gradients, which add up over chunks and ranks in float32. Norms are gathered in float32, each for itself,
and so are the tables and the head: autocast computes with them in float32, and sums of many tokens would lose
digits in a table of 16 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import cast, final

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from inbatch import compat
from inbatch.encoder import Encoder
from inbatch.encoder.linear import is_linear
from inbatch.gather import average_gradients
from inbatch.gradcache import Collectives
from inbatch.step.gradient_sync import GradientSync
from inbatch.step.loss_parameters import LossParameters
from inbatch.strategies.base import Strategy
from inbatch.strategies.fsdp_units import UnitCollectives

# Inputs of layers stay as they are: autocast casts those of products.
IN_16_BITS = MixedPrecisionPolicy(
    param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
)


@final
@dataclass(frozen=True)
class FSDP(Strategy):
    """Each transformer layer and the rest of the encoder are one unit that is gathered when it runs.

    Args:
        timeout_s: seconds after which a collective that one rank never joins ends the job.
        reshard_after_forward: free a unit's parameters after its forward; False keeps them until its
            backward, which costs memory and saves one all-gather per unit and chunk.
    """

    timeout_s: float = 600.0
    reshard_after_forward: bool = True

    collective_forward = True
    shards_parameters = True
    shards_optimizer = True
    refuses = ("fp16", "fp64")

    def lightning_strategy(
        self, *, accelerator: str, num_processes: int, num_nodes: int, clip_norm: float | None
    ) -> LightningStrategy | str:
        """Lightning's strategy around `fully_shard`; checkpoints are whole files, as DDP's."""
        return ModelParallelStrategy(
            data_parallel_size=num_processes * num_nodes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend="nccl" if accelerator == "cuda" else "gloo",
            timeout=timedelta(seconds=self.timeout_s),
        )

    def shard(self, encoder: Encoder, mesh: DeviceMesh | None, *, mixed: bool = False) -> None:
        """Shard layer by layer, then what is left: embeddings and head."""
        if isinstance(encoder, FSDPModule):
            return
        assert mesh is not None
        shard = partial(
            fully_shard,
            mesh=mesh["data_parallel"],
            reshard_after_forward=self.reshard_after_forward,
        )
        for layer in transformer_layers(encoder):
            apart = not_linear(layer)
            if mixed and layer not in apart:
                for module in apart:
                    shard(module)
                shard(layer, mp_policy=IN_16_BITS)
            else:
                shard(layer)
        shard(encoder)

    def place(self, parameters: LossParameters, mesh: DeviceMesh | None) -> None:
        """Whole on each rank, though distributed tensors as all others, for optimizers and checkpoints."""
        assert mesh is not None
        for name, parameter in list(parameters.named_parameters()):
            if not isinstance(parameter, DTensor):
                whole = distribute_tensor(parameter.data, mesh["data_parallel"], [Replicate()])
                parameters.register_parameter(name, nn.Parameter(whole))

    def gradient_sync(self, encoder: Encoder, trainer: Trainer) -> GradientSync:
        """Reduce-scatter in the last backward only; what is not in shards is averaged after it."""
        assert isinstance(encoder, FSDPModule)
        all_of_them = cast(nn.Module, trainer.model).parameters()
        return _LastBackward(encoder, [p for p in all_of_them if not _is_in_shards(p)])

    def weights(self, encoder: Encoder) -> dict[str, Tensor]:
        """The shards of this rank."""
        return {name: sharded.to_local() for name, sharded in _sharded(encoder).items()}

    def forget_gathered(self, encoder: Encoder) -> None:
        """Without `reshard_after_forward`, units stay gathered after a forward that nothing follows."""
        for module in encoder.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def for_checkpoint(
        self, encoder: Encoder, parts: Mapping[str, Tensor], *, rank: int
    ) -> dict[str, Tensor]:
        """Whole tensors on rank 0, gathered one by one; empty elsewhere."""
        found = {}
        for name, like in _sharded(encoder).items():
            whole = DTensor.from_local(
                parts[name],
                like.device_mesh,
                like.placements,
                shape=like.shape,
                stride=like.stride(),
            ).full_tensor()
            if rank == 0:
                found[name] = whole.cpu()
        return found

    def from_checkpoint(self, encoder: Encoder, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Shards of whole tensors, which every rank has read: nothing is sent."""
        found = {}
        for name, like in _sharded(encoder).items():
            whole = saved[name].to(like.device)
            divided = distribute_tensor(
                whole, like.device_mesh, like.placements, src_data_rank=None
            )
            found[name] = divided.to_local()
        return found

    def full_state(self, module: nn.Module, *, rank: int) -> dict[str, Tensor]:
        """Gathered parameters, on the CPU of rank 0; empty elsewhere."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return cast(dict[str, Tensor], get_model_state_dict(module, options=options))


def _sharded(encoder: nn.Module) -> dict[str, DTensor]:
    """The parameters that train."""
    named = {n: p.detach() for n, p in encoder.named_parameters() if p.requires_grad}
    return {name: cast(DTensor, parameter) for name, parameter in named.items()}


class _LastBackward(GradientSync):
    """The flags belong to the unit tree and hold until they are set again."""

    def __init__(self, encoder: FSDPModule, whole: Sequence[nn.Parameter]) -> None:
        self._encoder, self._whole = encoder, whole
        can_reset = compat.can_reset_units(encoder)
        self._collectives = UnitCollectives(encoder, whole) if can_reset else None

    @property
    def collectives(self) -> Collectives | None:
        """Those of the units, where torch can bring units back to the start of a batch."""
        return self._collectives

    @contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        """Set both flags for the backward to come."""
        self._encoder.set_requires_gradient_sync(last)
        self._encoder.set_is_last_backward(last)
        yield

    def finish(self) -> None:
        """Average what the units do not reduce."""
        average_gradients(self._whole)


def _is_in_shards(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, DTensor) and any(p.is_shard() for p in parameter.placements)


def not_linear(layer: nn.Module) -> list[nn.Module]:
    """The modules of a layer, itself included, that hold parameters and are no linear layers: its norms."""
    return [
        module
        for module in layer.modules()
        if not is_linear(module) and any(True for _ in module.parameters(recurse=False))
    ]


def transformer_layers(encoder: nn.Module) -> list[nn.Module]:
    """The longest list of blocks inside an encoder: its transformer layers."""
    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=lambda blocks: len(list(blocks)), default=nn.ModuleList()))
