"""One process, and data parallelism with whole replicas (DDP)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy

from inbatch.strategies.base import GradientSync, NoSync, Strategy

if TYPE_CHECKING:
    from inbatch.run.module import BiEncoderModule


@dataclass(frozen=True)
class SingleDevice(Strategy):
    """One process on one device."""

    def lightning_strategy(
        self, *, accelerator: str, num_processes: int, num_nodes: int, clip_norm: float | None
    ) -> LightningStrategy | str:
        """Lightning's own single-device strategy."""
        return "auto"

    def gradient_sync(self, module: BiEncoderModule) -> GradientSync:
        """Nothing to reduce."""
        return NoSync()


@dataclass(frozen=True)
class DDP(Strategy):
    """Every rank holds the whole model; gradients are all-reduced in buckets, once per step.

    Args:
        timeout_s: seconds after which a collective that one rank never joins ends the job.
        bucket_mib: size of a gradient bucket; buckets are reduced while backward still runs.
    """

    timeout_s: float = 600.0
    bucket_mib: float = 25.0

    def lightning_strategy(
        self, *, accelerator: str, num_processes: int, num_nodes: int, clip_norm: float | None
    ) -> LightningStrategy | str:
        """DDP without a search for unused parameters: the encoder has none. Never static_graph.

        With no_sync, static_graph gives wrong gradients from the second step on without an error.
        """
        return DDPStrategy(
            timeout=timedelta(seconds=self.timeout_s),
            process_group_backend="nccl" if accelerator == "cuda" else "gloo",
            find_unused_parameters=False,
            gradient_as_bucket_view=True,
            bucket_cap_mb=self.bucket_mib,
        )

    def gradient_sync(self, module: BiEncoderModule) -> GradientSync:
        """Synchronise in the last backward only."""
        return _NoSync(module)


class _NoSync(GradientSync):
    """Lightning prepares DDP's reducer in `manual_backward`, and only outside `no_sync`."""

    def __init__(self, module: BiEncoderModule) -> None:
        self._strategy = module.trainer.strategy

    @contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        """`no_sync` around all but the last backward."""
        if last:
            yield
            return
        assert isinstance(self._strategy, DDPStrategy)
        with self._strategy.block_backward_sync():
            yield


@dataclass(frozen=True)
class Auto:
    """One process runs without a wrapper, several run DDP.

    Args:
        timeout_s: as for DDP.
    """

    timeout_s: float = 600.0

    def resolve(self, world_size: int) -> Strategy:
        """SingleDevice or DDP."""
        return SingleDevice() if world_size == 1 else DDP(timeout_s=self.timeout_s)
