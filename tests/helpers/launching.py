"""Starts training as users do, in processes of its own, and sees how it ends."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.forked_command import ROOT
from helpers.forked_process import ForkedProcess, run_script
from helpers.runs import TINY

MARK = "INBATCH_TEST_RUN"
WITHIN_S = 600.0  # a start takes 10 s; the bound holds on a machine under a load of 20


@dataclass(frozen=True)
class Ended:
    """How a run ended, all its processes included."""

    code: int
    output: str


def command(launcher: str, *overrides: str) -> list[str]:
    """Two ranks of this machine, started by Lightning or by torchrun."""
    script = str(ROOT / "scripts" / "train.py")
    if launcher == "torchrun":
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            script,
        ]
        return [*start, *TINY, *overrides]
    return [sys.executable, script, *TINY, *overrides, "trainer.devices=2"]


def environment(**more: str) -> dict[str, str]:
    """Variables for ranks that share two cores."""
    modules = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": modules, **more}


def run(line: list[str], *, folder: Path, new: bool = False, **variables: str) -> Ended:
    """Run a command until it and everything that it has started have ended; see `started`."""
    with started(folder, line, new=new, **variables) as run:
        code = run.end()
    return Ended(code, run.log.read_text())


@dataclass(frozen=True)
class Started:
    """A run that goes on, all its processes included."""

    process: subprocess.Popen[bytes] | ForkedProcess
    log: Path
    mark: str
    waits_for_ranks: Callable[[], bool] = lambda: True  # of two nodes: it is where ranks meet

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait until something has come; it fails if the run ends before."""
        deadline = time.monotonic() + WITHIN_S
        while not reached():
            running = self.process.poll() is None
            assert running and time.monotonic() < deadline, self.log.read_text()  # noqa: PT018
            time.sleep(0.05)

    def stop(self, number: int) -> int:
        """Exit code after a signal; nothing that it has started may outlive it for long."""
        self.process.send_signal(number)
        return self.end()

    def press_ctrl_c(self) -> None:
        """Signal what a terminal signals: all processes that have not left its foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> int:
        """Exit code; nothing that it has started may outlive it for long."""
        code = self.process.wait(timeout=WITHIN_S)
        deadline = time.monotonic() + WITHIN_S
        while self.left():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        return code

    def says(self, text: str) -> bool:
        """Return whether something has been printed."""
        return text in self.log.read_text()

    def left(self) -> list[int]:
        """Its processes; one that is forked keeps the environment that its parent began with."""
        own = [self.process.pid] if self.process.poll() is None else []
        return sorted({*own, *processes({f"{MARK}={self.mark}"})})


@contextmanager
def started(
    folder: Path, line: list[str], *, new: bool = False, **variables: str
) -> Iterator[Started]:
    """Start a command as from the prompt of a terminal; what is left of it is killed at the end.

    Its first process is forked, unless it is to be a `new` one, which imports its libraries.
    """
    mark = secrets.token_hex(8)
    log = folder / f"{mark}.log"
    variables = environment(**{MARK: mark}, **variables)
    process: subprocess.Popen[bytes] | ForkedProcess
    if new:
        with log.open("wb") as file:
            process = subprocess.Popen(
                line,
                cwd=folder,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )
    else:
        log.touch()
        process = ForkedProcess(run_script, line, folder, log, variables)
    run = Started(process, log, mark)
    try:
        yield run
    finally:
        for pid in run.left():
            os.kill(pid, signal.SIGKILL)
        process.wait()


def processes(variables: set[str]) -> list[int]:
    """Processes in whose environment all of these `NAME=value` stand, the eldest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            there = set(path.read_text(errors="replace").split("\0"))
        except OSError:  # it has ended
            continue
        if variables <= there:
            found.append(int(path.parent.name))
    return sorted(found)
