"""Which processes a launcher has started, from the variables that it sets.

Those of Slurm are what version 22.05 sets in each kind of shell and step.
"""

from __future__ import annotations

import os
import socket

import pytest

from inbatch.errors import ConfigError
from inbatch.strategies.launcher import OwnRanks, StepRanks, cluster_environment
from inbatch.strategies.topology import find_launcher, find_world

JOB = {"SLURM_JOB_ID": "4711"}
INTERACTIVE = {"SLURM_STEP_ID": "4294967290", "SLURM_PTY_PORT": "39117"}  # Slurm's own step


def step(tasks: int, nodes: int = 1, **more: str) -> dict[str, str]:
    counts = {"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NUM_NODES": str(nodes)}
    return {**JOB, "SLURM_STEP_ID": "0", "SLURM_NTASKS": str(tasks), **counts, **more}


SHELLS = {
    "salloc -N1 --ntasks-per-node=2": {
        **step(1, SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2"),
        **INTERACTIVE,
    },
    "salloc -n2": {**step(1, SLURM_NTASKS="2"), **INTERACTIVE},
    "salloc -N2": {**step(1, SLURM_NNODES="2"), **INTERACTIVE},
    "salloc -N1": {**step(1), **INTERACTIVE},
    "salloc, whose shell stays on the login node": {**JOB, "SLURM_NTASKS": "2"},
    "srun --pty bash": step(1, SLURM_PTY_PORT="37049"),
    "sbatch, without srun": {**JOB, "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"},
}


@pytest.mark.parametrize("shell", list(SHELLS))
def test_a_shell_starts_its_ranks(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = SHELLS[shell]
    assert find_launcher(environ) is None
    assert find_world("cpu", 2, 1, environ=environ).devices == 2
    assert find_world("cpu", "auto", 1, environ=environ).size == 1
    _set(monkeypatch, environ)
    assert type(cluster_environment()) is OwnRanks


def test_no_other_run_takes_the_port_before_ranks_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_PORT", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    ranks = OwnRanks()
    port = ranks.main_port
    with pytest.raises(OSError, match="Address already in use"):
        socket.create_server(("", port))
    assert ranks.main_port == port


@pytest.mark.parametrize(
    ("environ", "devices", "nodes"),
    [
        (step(2), 2, 1),  # srun -n2, with which Lightning's own class ends
        (step(4, 2, SLURM_NTASKS_PER_NODE="2"), 2, 2),
        (step(2, 2), 1, 2),
        (step(2, SLURM_PTY_PORT="45321"), 2, 1),  # inside a shell of salloc
        (step(2, SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="4", SLURM_NNODES="2"), 2, 1),
    ],
)
def test_tasks_of_a_step_are_the_ranks(
    environ: dict[str, str], devices: int, nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.isatty", lambda descriptor: False)
    assert find_launcher(environ) == "srun"
    world = find_world("cpu", "auto", 1, environ=environ)
    assert (world.devices, world.num_nodes) == (devices, nodes)
    place = {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"}
    _set(monkeypatch, {**environ, **place, "SLURM_STEP_NODELIST": "n[3-4],n7"})
    ranks = cluster_environment()
    assert type(ranks) is StepRanks
    assert (ranks.world_size(), ranks.global_rank(), ranks.local_rank()) == (devices * nodes, 1, 1)
    assert (ranks.main_address, ranks.main_port) == ("n3", 19_711)
    monkeypatch.setenv("SLURM_STEP_ID", "1")  # runs beside it
    assert ranks.main_port != 19_711


@pytest.mark.parametrize(
    ("environ", "devices", "nodes", "message"),
    [
        (step(2, SLURM_PTY_PORT="32823"), 2, 1, r"srun --pty has opened this shell for 2 tasks"),
        (step(3, 2), "auto", 1, r"srun --ntasks=3 are not equally many on each of 2 nodes"),
        (
            {**step(1), **INTERACTIVE},
            2,
            2,
            "put srun --nodes=2 --ntasks-per-node=2 before the command",
        ),
        (JOB, 1, 2, "put srun --nodes=2 --ntasks-per-node=1 before the command"),
        (step(4, 2), 1, 2, r"do not match the launcher \(2 processes on each of 2 nodes\)"),
    ],
)
def test_what_would_wait_for_ever_is_refused(
    environ: dict[str, str],
    devices: int | str,
    nodes: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.isatty", lambda descriptor: True)
    with pytest.raises(ConfigError, match=message):
        find_world("cpu", devices, nodes, environ=environ)


def test_nodes_that_are_started_by_hand_may_be_in_an_allocation() -> None:
    assert find_world("cpu", 1, 2, environ={**JOB, "NODE_RANK": "1"}).size == 2


def _set(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "MASTER_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
