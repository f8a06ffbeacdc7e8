"""The guide as a training step sees it. Shape letters: N texts of a batch, Dg the guide's dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from inbatch.batch.batch import Batch
from inbatch.encoder.tokenize import TextTokenizer


def _no_barrier() -> None:
    """The barrier of a single process."""


def _alone(value: int) -> int:
    """The largest value of a single process."""
    return value


def _silent(line: str) -> None:
    """Prints nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One of the processes that start a guide together.

    device: where it computes.
    rank, world_size: which of how many it is.
    barrier: returns once all of them have called it.
    most: returns the largest of the integers that they call it with.
    say: prints a line; silent on all ranks but one.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    barrier: Callable[[], None] = _no_barrier
    most: Callable[[int], int] = _alone
    say: Callable[[str], None] = _silent


class Guide(Protocol):
    """Embeddings without gradient for losses that need a guide.

    No `nn.Module`: a guide reaches neither the optimizer nor a checkpoint nor a strategy's wrapper.
    """

    @property
    def looks_up(self) -> bool:
        """True if `embed` keeps the host busy rather than the device."""

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """The tokenizer of the guide's chunks in a batch; None where `embed` needs no tokens."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """The guide's prompts by role, see `resolve_prompts`."""

    @property
    def dimension(self) -> int:
        """Dg."""

    def start(self, process: Process) -> None:
        """Get ready, before the first step; every rank calls it."""

    def embed(self, batch: Batch, device: torch.device) -> Tensor:
        """Embeddings of all texts in the batch's flat order, float32 or float16 on `device`: [N, Dg]."""
