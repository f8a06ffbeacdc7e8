"""A process as others can recognise it: on which host, in which job, and whether it still runs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process of some host.

    host, boot: the host, and its start; another start is the end of all processes before it.
    pids: the namespace of process numbers; containers have their own.
    pid, start: number and start time in clock ticks; numbers are used again.
    job, restart: of Slurm, if it runs there, and how often that was started before.
    """

    host: str
    boot: str
    pids: str
    pid: int
    start: int | None
    job: str | None = None
    restart: int = 0

    @property
    def is_here(self) -> bool:
        """True if this process can see whether it runs."""
        here = this_process()
        return (self.host, self.boot, self.pids) == (here.host, here.boot, here.pids)

    def __str__(self) -> str:
        """As ``process 71 on node3, Slurm job 12``."""
        job = f", Slurm job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def this_process() -> Process:
    """The process that asks."""
    return Process(
        host=socket.gethostname(),
        boot=_text(Path("/proc/sys/kernel/random/boot_id")),
        pids=_link(Path("/proc/self/ns/pid")),
        pid=os.getpid(),
        start=_start(os.getpid()),
        job=os.environ.get("SLURM_JOB_ID"),
        restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    )


def is_gone(process: Process) -> bool:
    """True if it is known to have ended; False where nobody can tell."""
    here = this_process()
    if process.job is not None and process.job == here.job and process.restart < here.restart:
        return True
    if process.host == here.host and process.boot != here.boot:
        return bool(process.boot and here.boot)
    if not process.is_here:
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return process.start != _start(process.pid)


def _start(pid: int) -> int | None:
    """Start time of a process; None if it has ended, and is only not yet waited for, or nobody can tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # not Linux
        return ""


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
