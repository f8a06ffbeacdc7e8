"""How many processes a run has; the only reader of launcher variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from inbatch.device.capability import default_accelerator
from inbatch.errors import ConfigError


@dataclass(frozen=True, slots=True)
class World:
    """Processes of a run: one per device."""

    accelerator: str  # "cpu" or "cuda"
    devices: int  # per node
    num_nodes: int

    @property
    def size(self) -> int:
        """World size."""
        return self.devices * self.num_nodes


def find_world(
    accelerator: str,
    devices: int | str,
    num_nodes: int,
    *,
    environ: Mapping[str, str] | None = None,
    group: str = "trainer.",
) -> World:
    """The world that the configuration asks for, checked against what a launcher has started.

    Args:
        accelerator: "auto", "cpu" or "cuda".
        devices: processes per node, or "auto": what torchrun or srun started, else all GPUs, else one.
        num_nodes: nodes.
        environ: variables of the launcher; those of this process by default.
        group: what the keys of the three stand below, for messages.

    Raises:
        ConfigError: no GPU where one is asked for, or a count that differs from the launcher's.
    """
    environ = os.environ if environ is None else environ
    if accelerator == "auto":
        accelerator = default_accelerator()
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"{group}accelerator", "needs a GPU, and torch finds none", "set cpu", value=accelerator
        )
    launched = _launched(environ)
    if devices == "auto":
        found = torch.cuda.device_count() if accelerator == "cuda" else 1
        devices, num_nodes = launched or (found, num_nodes)
    world = World(accelerator, _count(devices, group), num_nodes)
    if (
        launched is None
        and num_nodes > 1
        and "SLURM_JOB_ID" in environ
        and "NODE_RANK" not in environ
    ):
        raise ConfigError(
            f"{group}num_nodes",
            "needs processes on the other nodes, which this one does not start",
            f"put srun --nodes={num_nodes} --ntasks-per-node={world.devices} before the command",
            value=num_nodes,
        )
    if launched is not None and launched != (world.devices, world.num_nodes):
        raise ConfigError(
            f"{group}devices={world.devices} and {group}num_nodes={world.num_nodes}",
            f"do not match the launcher ({launched[0]} processes on each of {launched[1]} nodes)",
            f"make them equal, or leave {group}devices=auto",
        )
    return world


def cores_per_rank(world: World) -> int:
    """Cores for one process: those of its task under srun, its part of a machine's otherwise."""
    bound = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(bound(0)) if bound else os.cpu_count() or 1
    return cores if find_launcher() == "srun" else max(1, cores // world.devices)


def find_launcher(environ: Mapping[str, str] | None = None) -> Literal["torchrun", "srun"] | None:
    """The launcher that has started this process as one of several, if there is one.

    The script of a batch job has Slurm's variables as well, but is no task of a step. A shell that salloc or
    srun has opened is the only task of its step, whatever the allocation has room for, and starts its ranks.
    """
    environ = os.environ if environ is None else environ
    if "TORCHELASTIC_RUN_ID" in environ:
        return "torchrun"
    if "SLURM_STEP_ID" in environ and int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return "srun"
    return None


def _launched(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Processes per node and nodes, of torchrun or of an srun step; None for neither.

    Raises:
        ConfigError: the tasks of a step are not what they must be.
    """
    launcher = find_launcher(environ)
    if launcher == "torchrun":
        local = int(environ["LOCAL_WORLD_SIZE"])
        return local, int(environ["WORLD_SIZE"]) // local
    if launcher == "srun":
        tasks, nodes = int(environ["SLURM_STEP_NUM_TASKS"]), int(environ["SLURM_STEP_NUM_NODES"])
        if "SLURM_PTY_PORT" in environ and os.isatty(0):  # a nested step inherits the variable
            raise ConfigError(
                "srun --pty",
                f"has opened this shell for {tasks} tasks, of which it is one",
                "open it for one task (srun --ntasks=1 --pty bash), which starts the ranks itself",
            )
        if tasks % nodes:
            raise ConfigError(
                f"srun --ntasks={tasks}",
                f"are not equally many on each of {nodes} nodes",
                "set --ntasks-per-node",
            )
        return tasks // nodes, nodes
    return None


def _count(devices: int | str, group: str) -> int:
    try:
        count = int(devices)
    except ValueError:
        count = 0
    if count < 1:
        raise ConfigError(
            f"{group}devices", "is not a number of processes", "set auto, 1, 2, ...", value=devices
        )
    return count
