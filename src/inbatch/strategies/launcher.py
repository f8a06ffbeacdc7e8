"""Which launcher has started this process, as Lightning wants to be told."""

from __future__ import annotations

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from inbatch.strategies.topology import find_launcher


def cluster_environment() -> ClusterEnvironment:
    """torchrun's or srun's; where neither is, Lightning starts the processes of a node itself.

    Lightning's own search would take the script of a batch job for a task of srun. Its requeueing
    is off, because it saves inside the signal handler; `inbatch.callbacks.preemption` does not.
    """
    launcher = find_launcher()
    if launcher == "torchrun":
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if launcher == "srun" else LightningEnvironment()
