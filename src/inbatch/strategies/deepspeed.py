"""DeepSpeed ZeRO 1, 2 and 3: optimizer state, gradients and parameters in shards.

Several backwards per step are silently wrong under ZeRO unless each knows whether it is the last.
The whole loop runs inside `engine.coalesce_grad_reduction()`, which leaves gradients on their rank and
reduces once on exit: right at every stage, also when a submodule's forward bypasses the engine. Price:
gradients are held whole until the flush, so stages 2 and 3 save optimizer state and parameters only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, final

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy
from torch import Tensor, nn

from inbatch import compat
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.step.gradient_sync import GradientSync
from inbatch.step.loss_parameters import clamp_whole
from inbatch.strategies.base import Strategy
from inbatch.strategies.deepspeed_precision import InbatchDeepSpeedStrategy


@final
@dataclass(frozen=True)
class DeepSpeed(Strategy):
    """ZeRO at one stage.

    Args:
        stage: 1 shards optimizer state, 2 gradients too, 3 parameters too.
        offload_optimizer: keep optimizer state and its update on the CPU.
        timeout_s: seconds after which a collective that one rank never joins ends the job.
        bucket_elements: elements reduced or gathered at once.
        persistence_threshold: stage 3 keeps parameters of fewer elements whole on every rank.
    """

    stage: int = 2
    offload_optimizer: bool = False
    timeout_s: float = 600.0
    bucket_elements: int = 200_000_000
    persistence_threshold: int = 100_000

    clips_gradients = True
    refuses = ("fp64",)
    package = "deepspeed"

    def __post_init__(self) -> None:
        if self.stage not in (1, 2, 3):
            raise ConfigError(
                "stage", "is not a stage of DeepSpeed", "set 1, 2 or 3", value=self.stage
            )

    @property
    def collective_forward(self) -> bool:
        """Stage 3 gathers parameters in each forward."""
        return self.stage == 3

    @property
    def shards_optimizer(self) -> bool:
        """All stages divide it."""
        return True

    @property
    def saves_shards(self) -> bool:
        """All stages do."""
        return True

    @property
    def shards_parameters(self) -> bool:
        """Stage 3 divides parameters too."""
        return self.stage == 3

    @property
    def offloads_optimizer(self) -> bool:
        """As configured."""
        return self.offload_optimizer

    def lightning_strategy(
        self, *, accelerator: str, num_processes: int, num_nodes: int, clip_norm: float | None
    ) -> LightningStrategy | str:
        """Lightning's strategy; a subclass on the CPU, which Lightning itself refuses."""
        options: dict[str, Any] = {
            "config": self._config(clip_norm),
            "timeout": timedelta(seconds=self.timeout_s),
        }
        if accelerator == "cuda":
            return InbatchDeepSpeedStrategy(**options)
        return _CPUDeepSpeedStrategy(**options, process_group_backend="gloo")

    def _config(self, clip_norm: float | None) -> dict[str, Any]:
        zero: dict[str, Any] = {
            "stage": self.stage,
            "reduce_bucket_size": self.bucket_elements,
            "allgather_bucket_size": self.bucket_elements,
        }
        if self.stage == 3:
            zero["stage3_param_persistence_threshold"] = self.persistence_threshold
        if self.offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        config: dict[str, Any] = {
            "zero_optimization": zero,
            "train_micro_batch_size_per_gpu": 1,  # informs DeepSpeed's own log lines only
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        if clip_norm is not None:
            config["gradient_clipping"] = clip_norm
        return config

    def gradient_sync(self, encoder: Encoder, trainer: Trainer) -> GradientSync:
        """One coalesced reduction per optimizer step."""
        return _Coalesced(trainer.model)

    def limit(self, parameter: nn.Parameter, most: float) -> None:
        """The copy that the optimizer holds, too, from which the next step takes up."""
        from deepspeed import utils  # here, since importing it takes seconds and probes the device

        clamp_whole(parameter, most)
        if self.stage < 3:
            held = utils.safe_get_full_fp32_param(parameter)
            utils.safe_set_full_fp32_param(parameter, held.clamp(max=most))
            return
        parameter.ds_tensor.data.clamp_(max=most)  # type: ignore[attr-defined]
        part = utils.safe_get_local_fp32_param(parameter)
        utils.safe_set_local_fp32_param(parameter, part.clamp(max=most))

    def gradient_norm(self, trainer: Trainer) -> Tensor | None:
        """The norm of the last step, before clipping; inf where DeepSpeed has skipped the step."""
        engine: Any = trainer.model
        norm = engine.get_global_grad_norm()  # a float where the step was skipped
        return torch.as_tensor(norm, dtype=torch.float32, device=trainer.strategy.root_device)

    def weights(self, encoder: Encoder) -> dict[str, Tensor]:
        """Whole weights; shards at stage 3. In float32 they are equal to those of the optimizer."""
        if self.stage < 3:
            return super().weights(encoder)
        named: dict[str, Any] = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
        return {name: parameter.ds_tensor.detach() for name, parameter in named.items()}

    def forget_gathered(self, encoder: Encoder) -> None:
        """Stage 3 keeps small parameters whole from their first gathering on."""
        if self.stage == 3:
            import deepspeed

            with deepspeed.zero.GatheredParameters(list(encoder.parameters())):
                pass

    def for_checkpoint(
        self, encoder: Encoder, parts: Mapping[str, Tensor], *, rank: int
    ) -> dict[str, Tensor]:
        """As whole files have it; at stage 3 the shards, since each rank has a file of its own."""
        return super().for_checkpoint(encoder, parts, rank=0 if self.stage == 3 else rank)

    def full_state(self, module: nn.Module, *, rank: int) -> dict[str, Tensor]:
        """Whole parameters; stage 3 gathers them."""
        if self.stage < 3:
            return super().full_state(module, rank=rank)
        import deepspeed  # here, since importing it takes seconds and probes the device

        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            if rank != 0:
                return {}
            return {n: t.detach().cpu().clone() for n, t in module.state_dict().items()}


class _Coalesced(GradientSync):
    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._open: AbstractContextManager[None] | None = None

    def start(self) -> None:
        """Enter the block in which gradients stay on their rank."""
        self._open = self._engine.coalesce_grad_reduction()
        self._open.__enter__()

    @contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        """Do nothing: the block around the step decides."""
        yield

    def finish(self) -> None:
        """Leave the block: one reduction."""
        assert self._open is not None
        self._open.__exit__(None, None, None)
        self._open = None


class _CPUDeepSpeedStrategy(InbatchDeepSpeedStrategy):
    """Runs without a GPU, for tests and dry runs."""

    def setup_environment(self) -> None:
        """As Lightning's, without its refusal of CPUs; DeepSpeed wants an index on each device."""
        compat.switch_off_shared_memory_collectives()
        self.parallel_devices = [torch.device("cpu", i) for i in range(self.num_processes)]
        super(DeepSpeedStrategy, self).setup_environment()
