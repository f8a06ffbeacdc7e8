"""Precision under DeepSpeed: weights stay in float32 under bf16, and labels under every precision.

Left alone, Lightning turns bf16 into DeepSpeed's own: weights in bf16, in which gradients of chunks add
up too, so that an update depends on the chunks by some percent. Here bf16 is autocast, as under DDP. fp16
stays DeepSpeed's own, with its strategy of the loss: its autocast clips by the norm of scaled gradients,
and lets each rank decide alone whether a step is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import DeepSpeedPrecision, Precision
from lightning.pytorch.strategies import DeepSpeedStrategy

from inbatch import compat


class InbatchDeepSpeedStrategy(DeepSpeedStrategy):
    """Lightning's strategy with the precision above, whichever plugin the trainer chooses."""

    def setup(self, trainer: Trainer) -> None:
        """As Lightning's, without the wait for a compiler that nothing needs."""
        compat.leave_muon_uncompiled()
        super().setup(trainer)

    @property
    def precision_plugin(self) -> Precision:
        """The replacement for what the trainer has chosen."""
        return super().precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        if isinstance(plugin, DeepSpeedPrecision):
            plugin = _Precision(plugin.precision, self)
        if plugin is not None and plugin.precision == "bf16-mixed":
            assert isinstance(self.config, dict)
            # Without safe modules, gradients are reduced in their own precision, float32.
            self.config["torch_autocast"] = {
                "enabled": True,
                "dtype": "bfloat16",
                "lower_precision_safe_modules": [],
            }
            self.config["bf16"] = {"enabled": False}  # else Lightning would set it
        DeepSpeedStrategy.precision_plugin.fset(self, plugin)  # type: ignore[attr-defined]


class _Precision(DeepSpeedPrecision):
    """Casts no input, and computes in bf16 under bf16-mixed."""

    def __init__(self, precision: Any, strategy: DeepSpeedStrategy) -> None:
        super().__init__(precision)
        self._strategy = strategy

    def convert_input(self, data: Any) -> Any:
        """As it is: a batch's floating-point values are labels, which the loss takes in float32."""
        return data

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Autocast, here as well as in DeepSpeed's engine, which evaluation does not run through."""
        if self.precision != "bf16-mixed":
            with super().forward_context():
                yield
            return
        device = self._strategy.root_device.type
        # As Lightning's autocast: casts that are kept would hold a copy of the weights.
        with torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False):
            yield
