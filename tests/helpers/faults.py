"""A logger that breaks a rank, or signals it, in the middle of training."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import torch.distributed
from lightning.pytorch.loggers import Logger


class Fault(Logger):
    """Something happens when a rank logs a step.

    Args:
        kind: "raise", "wait" for ever, "hold" until a signal to stop has come, or the name of a signal that
            the rank sends to itself.
        rank: which.
        step: when.
    """

    name = "fault"
    version = ""

    def __init__(self, kind: str, rank: int, step: int) -> None:
        super().__init__()
        self._kind, self._rank, self._step = kind, rank, step

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Break."""
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        if step != self._step or rank != self._rank:
            return
        if self._kind == "raise":
            raise RuntimeError("broken on purpose")
        if self._kind == "hold":
            hold()
            return
        while self._kind == "wait":
            time.sleep(1)
        os.kill(os.getpid(), signal.Signals[self._kind])

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


def hold() -> None:
    """Wait until the run has noted a signal to stop."""
    request = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
    while not request.number:
        time.sleep(0.05)


def fault(kind: str, *, rank: int = 0, step: int, name: str = "fault") -> list[str]:
    """Overrides that add a fault to a run."""
    values = {"_target_": "helpers.faults.Fault", "kind": kind, "rank": rank, "step": step}
    return [f"++logger.{name}.{key}={value}" for key, value in values.items()]
