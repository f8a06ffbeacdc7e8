"""One process, and data parallelism with whole replicas (DDP)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy

from inbatch.encoder import Encoder
from inbatch.step.gradient_sync import GradientSync, NoSync
from inbatch.strategies.base import Strategy


@final
@dataclass(frozen=True)
class SingleDevice(Strategy):
    """One process on one device."""

    def lightning_strategy(
        self, *, accelerator: str, num_processes: int, num_nodes: int, clip_norm: float | None
    ) -> LightningStrategy | str:
        """Lightning's own single-device strategy."""
        return "auto"

    def gradient_sync(self, encoder: Encoder, trainer: Trainer) -> GradientSync:
        """Nothing to reduce."""
        return NoSync()


@final
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

        With no_sync, static_graph gives wrong gradients from the second step on without an error. Nor are
        buffers sent before each step: an encoder's are position ids and frequencies, which never change.
        """
        return DDPStrategy(
            timeout=timedelta(seconds=self.timeout_s),
            process_group_backend="nccl" if accelerator == "cuda" else "gloo",
            find_unused_parameters=False,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            bucket_cap_mb=self.bucket_mib,
        )

    def gradient_sync(self, encoder: Encoder, trainer: Trainer) -> GradientSync:
        """Synchronise in the last backward only."""
        return _LastBackward(trainer.strategy)


class _LastBackward(GradientSync):
    """Lightning prepares DDP's reducer in `manual_backward`, and only outside `no_sync`."""

    def __init__(self, strategy: LightningStrategy) -> None:
        assert isinstance(strategy, DDPStrategy)
        self._strategy = strategy

    @contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        """`no_sync` around all but the last backward."""
        if last:
            yield
            return
        with self._strategy.block_backward_sync():
            yield


@final
@dataclass(frozen=True)
class Auto(Strategy):
    """One process runs without a wrapper, several run DDP.

    Args:
        timeout_s: as for DDP.
    """

    timeout_s: float = 600.0

    def resolve(self, world_size: int) -> Strategy:
        """SingleDevice or DDP."""
        return SingleDevice() if world_size == 1 else DDP(timeout_s=self.timeout_s)

    def lightning_strategy(
        self, *, accelerator: str, num_processes: int, num_nodes: int, clip_norm: float | None
    ) -> LightningStrategy | str:
        """That of the strategy that it resolves to."""
        return self.resolve(num_processes * num_nodes).lightning_strategy(
            accelerator=accelerator,
            num_processes=num_processes,
            num_nodes=num_nodes,
            clip_norm=clip_norm,
        )

    def gradient_sync(self, encoder: Encoder, trainer: Trainer) -> GradientSync:
        """That of the strategy that it resolves to."""
        return self.resolve(trainer.world_size).gradient_sync(encoder, trainer)
