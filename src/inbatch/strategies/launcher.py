"""Which launcher has started this process, as Lightning wants to be told."""

from __future__ import annotations

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from inbatch.strategies.topology import World, find_launcher

_RANK_0 = "rank 0"


def cluster_environment() -> ClusterEnvironment:
    """torchrun's or srun's; where neither is, Lightning starts the processes of a node itself.

    Lightning's own search would take the script of a batch job for a task of srun. Its requeueing
    is off, because it saves inside the signal handler; `inbatch.callbacks.preemption` does not.
    """
    launcher = find_launcher()
    if launcher == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if launcher == "srun" else LightningEnvironment()


def rank_name() -> str:
    """Of this process, from what its launcher says; ranks may not have met yet."""
    environment = cluster_environment()
    if not isinstance(environment, LightningEnvironment):
        return f"rank {environment.global_rank()}"
    node, local = environment.node_rank(), environment.local_rank()
    return f"node {node}, its rank {local}" if node else f"rank {local}"


def global_rank(world: World) -> int:
    """Of this process, before ranks have met."""
    environment = cluster_environment()
    if isinstance(environment, LightningEnvironment):
        return environment.node_rank() * world.devices + environment.local_rank()
    return environment.global_rank()


def is_first_process() -> bool:
    """True if this process is, or starts, rank 0."""
    return rank_name() == _RANK_0
