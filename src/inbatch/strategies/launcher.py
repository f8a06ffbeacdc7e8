"""Which launcher has started this process, as Lightning wants to be told."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from torch.distributed import DistNetworkError, TCPStore

from inbatch.cluster.first_rank import start_ranks_from_here
from inbatch.errors import ConfigError
from inbatch.strategies.topology import World, find_launcher

_RANK_0 = "rank 0"
_PORT = "MASTER_PORT"


@final
class OwnRanks(LightningEnvironment):
    """Lightning starts the ranks of this machine, which end with this process."""

    def __init__(self) -> None:
        """Choose no port yet."""
        super().__init__()
        self._listens: TCPStore | None = None

    @property
    def main_port(self) -> int:
        """The port at which ranks meet; where none is set, one at which this process listens from now on.

        Lightning's class finds a port that is free, and another run can take it before rank 0 listens there.
        Torch has rank 0 meet the others in the store that its process has at that port already.
        """
        if self.creates_processes_externally or _PORT in os.environ or self.node_rank():
            return super().main_port
        if self._listens is None:
            self._listens = TCPStore(
                self.main_address, 0, is_master=True, wait_for_workers=False, multi_tenant=True
            )
        return self._listens.port

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Called right before the ranks are started.

        Raises:
            ConfigError: the port at which the ranks of the run are to meet is not free.
        """
        if not self.creates_processes_externally:
            if self.node_rank() == 0 and num_devices * num_nodes > 1:
                check_port()
            start_ranks_from_here()


@final
class StepRanks(ClusterEnvironment):
    """The ranks are the tasks of a step of srun.

    Lightning's class reads the variables of the allocation, which may have room for more, and refuses tasks
    that are given as --ntasks.
    """

    @property
    def creates_processes_externally(self) -> bool:
        """srun has started them."""
        return True

    @property
    def main_address(self) -> str:
        """The host of rank 0."""
        nodes = os.environ["SLURM_STEP_NODELIST"]
        return os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)

    @property
    def main_port(self) -> int:
        """A port that no other job or step is likely to choose."""
        job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
        return int(os.environ.get(_PORT) or 15_000 + (job + 97 * step) % 10_000)

    @staticmethod
    def detect() -> bool:
        """Whether it is the one to use."""
        return find_launcher() == "srun"

    def world_size(self) -> int:
        """Tasks of the step."""
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    def global_rank(self) -> int:
        """Of this process."""
        return int(os.environ["SLURM_PROCID"])

    def local_rank(self) -> int:
        """Of this process on its node."""
        return int(os.environ["SLURM_LOCALID"])

    def node_rank(self) -> int:
        """Of the node in the step."""
        return int(os.environ["SLURM_NODEID"])

    def set_world_size(self, size: int) -> None:
        """Nothing: srun has set it."""

    def set_global_rank(self, rank: int) -> None:
        """Nothing: srun has set it."""


def check_port() -> None:
    """Make sure that rank 0 can listen at the port that is set.

    Raises:
        ConfigError: it is no port, or another process listens there.
    """
    port = os.environ.get(_PORT)
    if port is None:
        return
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(f"{_PORT}={port}", "is not a port", f"unset {_PORT}, or set a number")
    both = socket.has_dualstack_ipv6()  # as torch listens
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", int(port)), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise port_taken(error.errno or 0) from None


@contextmanager
def meeting_ranks() -> Iterator[None]:
    """Around what makes ranks meet: another run may have taken the port since it was found free.

    Raises:
        ConfigError: it has.
    """
    try:
        yield
    except DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise port_taken(errno.EADDRINUSE) from None


def port_taken(number: int) -> ConfigError:
    """The error where rank 0 cannot listen at its port."""
    return ConfigError(
        f"{_PORT}={os.environ.get(_PORT)}",
        f"cannot be used ({os.strerror(number)}), as where another run uses it",
        f"unset {_PORT} and a free port is taken, or export another one for each run",
    )


def cluster_environment() -> ClusterEnvironment:
    """torchrun's or srun's; where neither is, Lightning starts the processes of a node itself.

    Lightning's own search would take the script of a batch job for a task of srun. Its class for that would
    also requeue, and save inside the signal handler; `inbatch.callbacks.preemption` does not.
    """
    launcher = find_launcher()
    if launcher == "torchrun":
        return TorchElasticEnvironment()
    return StepRanks() if launcher == "srun" else OwnRanks()


def rank_name() -> str:
    """Of this process, from what its launcher says; ranks may not have met yet."""
    environment = cluster_environment()
    if not isinstance(environment, OwnRanks):
        return f"rank {environment.global_rank()}"
    node, local = environment.node_rank(), environment.local_rank()
    return f"node {node}, its rank {local}" if node else f"rank {local}"


def global_rank(world: World) -> int:
    """Of this process, before ranks have met."""
    environment = cluster_environment()
    if isinstance(environment, LightningEnvironment):
        return environment.node_rank() * world.devices + environment.local_rank()
    return environment.global_rank()


def own_device(world: World) -> torch.device:
    """The device of this process, before ranks have met."""
    if world.accelerator == "cpu":
        return torch.device("cpu")
    return torch.device(world.accelerator, cluster_environment().local_rank())


def is_first_process() -> bool:
    """True if this process is, or starts, rank 0."""
    return rank_name() == _RANK_0
