"""Strategies: accumulate gradients locally, reduce them once a step."""

from inbatch.strategies.base import Strategy
from inbatch.strategies.ddp import DDP, Auto, SingleDevice
from inbatch.strategies.deepspeed import DeepSpeed
from inbatch.strategies.fsdp import FSDP
from inbatch.strategies.launcher import (
    cluster_environment,
    global_rank,
    is_first_process,
    own_device,
)
from inbatch.strategies.topology import World, cores_per_rank, find_world

__all__ = [
    "DDP",
    "FSDP",
    "Auto",
    "DeepSpeed",
    "Strategy",
    "SingleDevice",
    "World",
    "cluster_environment",
    "cores_per_rank",
    "find_world",
    "global_rank",
    "is_first_process",
    "own_device",
]
