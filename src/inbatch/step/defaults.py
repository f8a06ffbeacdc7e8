"""What a step takes where its caller names nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from inbatch.encoder import Encoder
from inbatch.gather import barrier, largest, rank_and_world_size
from inbatch.guide import Process
from inbatch.step.gradient_sync import AverageGradients, GradientSync, NoSync


def default_sync(trained: Sequence[Tensor], world_size: int) -> GradientSync:
    """The average over ranks after the last backward; nothing on a single rank."""
    return NoSync() if world_size == 1 else AverageGradients(trained)


def this_process(encoder: Encoder) -> Process:
    """This rank of the process group, or a process alone; on the device of the encoder."""
    rank, world_size = rank_and_world_size()
    device = next(encoder.parameters()).device
    most = partial(largest, device=device)
    return Process(
        device=device, rank=rank, world_size=world_size, barrier=barrier, most=most, say=print
    )
