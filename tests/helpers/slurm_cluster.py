"""A private Slurm cluster on this machine: real daemons, one network namespace per node, no systemd."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from helpers.namespaces import PROGRAMS, Hosts, search_path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NEEDED = (*PROGRAMS, *DAEMONS)
# Requeued jobs wait for old credentials to expire: two minutes by default, five seconds at least.
CONFIG = """\
ClusterName=test
SlurmctldHost={machine}({address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostName={machine} NodeAddr={address} CPUs=2 RealMemory=1000 State=UNKNOWN\n"


class Cluster:
    """Context manager: a controller and nodes `n1`, `n2`, ...

    Args:
        folder: for configuration, state and logs.
        num_nodes: nodes of two (declared) cores.
    """

    def __init__(self, folder: Path, *, num_nodes: int = 2) -> None:
        self._folder = folder
        self._nodes = [f"n{number}" for number in range(1, num_nodes + 1)]
        self._hosts = Hosts("login", *self._nodes)
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": search_path(),
        }

    def __enter__(self) -> Cluster:
        self._hosts.__enter__()
        try:
            self._configure()
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self) -> None:
        munge = [
            "munged",
            f"--key-file={self._folder}/munge.key",
            f"--socket={self._folder}/munge.sock",
        ]
        munge += [f"--{name}-file={self._folder}/munged.{name}" for name in ("pid", "log", "seed")]
        self._call(munge)
        self._call(self.on("login", "slurmctld", "-c"))
        for name in self._nodes:
            self._call(self.on(name, "slurmd", "-c", "-N", name))
        idle = lambda: self.ask("sinfo", "--noheader", "--states=idle", "--format=%D").strip()  # noqa: E731
        self.wait(lambda: idle() == str(len(self._nodes)), "the nodes are idle", seconds=30)

    def _stop(self) -> None:
        self.ask("scancel", "--signal=KILL", "--full", "--user=root")
        self.ask("scancel", "--user=root")
        for path in self._folder.glob("*.pid"):
            os.kill(int(path.read_text()), signal.SIGTERM)
        self.wait(
            lambda: not list(self._folder.glob("slurmctld.pid")), "the controller ends", seconds=30
        )
        self._hosts.__exit__(None, None, None)

    def on(self, host: str, *command: str) -> list[str]:
        """A command line that runs a command on a node, or on `login`."""
        return self._hosts.command(host, command)

    def ask(self, *command: str) -> str:
        """Output of a command of Slurm, run on the login node."""
        done = self._call(self.on("login", *command), check=False)
        return str(done.stdout)

    def job(self, job_id: str) -> dict[str, str]:
        """What Slurm says of a job."""
        return dict(
            re.findall(r"(?:^|\s)(\w+)=(\S*)", self.ask("scontrol", "show", "job", "-o", job_id))
        )

    def wait_for_end(self, job_id: str, *, seconds: float) -> dict[str, str]:
        """Wait until a job has ended; what Slurm then says of it."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self.wait(
            lambda: self.job(job_id)["JobState"] in over, f"job {job_id} ends", seconds=seconds
        )
        return self.job(job_id)

    def wait(self, reached: Callable[[], bool], what: str, *, seconds: float) -> None:
        """Wait until something is true; the daemons' logs tell why it never was."""
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                logs = [
                    f"{path.name}:\n{path.read_text()[-2000:]}"
                    for path in self._folder.glob("*.log")
                ]
                raise AssertionError("\n".join([f"not within {seconds} s: {what}", *logs]))
            time.sleep(0.05)

    def _configure(self) -> None:
        (self._folder / "state").mkdir()
        key = self._folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        machine = os.uname().nodename
        text = "".join(
            NODE.format(name=name, machine=machine, address=self._hosts.address(name))
            for name in self._nodes
        )
        text += CONFIG.format(
            machine=machine, address=self._hosts.address("login"), folder=self._folder
        )
        (self._folder / "slurm.conf").write_text(text)

    def _call(
        self, command: Sequence[str], *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environ, check=check, text=True, stdout=subprocess.PIPE, timeout=60
        )
