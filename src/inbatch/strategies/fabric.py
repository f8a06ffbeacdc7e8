"""The ranks of a command that does not train."""

from __future__ import annotations

from datetime import timedelta

from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy

from inbatch import compat
from inbatch.strategies.failed_rank import watch_ranks
from inbatch.strategies.launcher import cluster_environment
from inbatch.strategies.topology import World


def launched(world: World) -> Fabric:
    """Start the ranks of a world, or join those that a launcher has started; returns on each of them.

    A rank that waits for the others waits as long as they take.
    """
    compat.observe_ranks(watch_ranks)
    fabric = Fabric(
        accelerator=world.accelerator,
        devices=world.devices,
        num_nodes=world.num_nodes,
        strategy=DDPStrategy(timeout=timedelta(days=7)) if world.size > 1 else "auto",
        plugins=[cluster_environment()],
    )
    fabric.launch()
    return fabric
