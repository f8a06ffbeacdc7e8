"""One run at a time holds a folder; a dead one loses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from inbatch.cluster import lease
from inbatch.cluster.lease import Holder, hold, job_has_ended, take
from inbatch.cluster.process import Process, is_gone, this_process
from inbatch.errors import ConfigError

HOLD = """
import sys
from pathlib import Path
from inbatch.cluster.lease import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
ELSEWHERE = replace(this_process(), host="node7", boot="of another machine")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "run.lease"


def _hold(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lease until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _write(path: Path, process: Process) -> Holder:
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = Holder("theirs", process, "2026-01-31 12:00:00")
    path.write_text(json.dumps(asdict(holder)))
    return holder


def _me() -> Holder:
    return Holder("mine", this_process(), "now")


def test_a_second_process_is_refused_at_once(path: Path) -> None:
    process = _hold(path)
    said = rf"output_dir='{path.parent}' is in use by another run \(process {process.pid} on \S+, since "
    with pytest.raises(ConfigError, match=said), hold(path):
        pass
    process.communicate("end\n")
    with hold(path):
        assert json.loads(path.read_text())["process"]["pid"] == os.getpid()
    assert [p.name for p in path.parent.iterdir()] == []


@pytest.mark.parametrize("waited_for", [True, False])
def test_a_killed_holder_loses_it_at_once(path: Path, waited_for: bool) -> None:
    process = _hold(path)
    os.kill(process.pid, signal.SIGKILL)
    if waited_for:  # else it is left as a zombie
        process.wait()
    else:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with hold(path):
        pass
    process.wait()


def test_a_number_that_another_process_has_now(path: Path) -> None:
    _write(path, replace(this_process(), start=1))
    with hold(path):
        pass


def test_a_holder_elsewhere_that_lives_keeps_it(path: Path) -> None:
    _write(path, ELSEWHERE)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(ConfigError, match="node7, since 2026-01-31 12:00:00"), hold(path):
            pass
    finally:
        ended.set()
        thread.join()
    assert json.loads(path.read_text())["id"] == "theirs"


def test_a_silent_holder_elsewhere_loses_it(path: Path) -> None:
    _write(path, ELSEWHERE)
    os.utime(path, (0, 0))
    assert take(path, _me()).id == "mine"
    assert json.loads(path.read_text())["id"] == "mine"
    _write(path, ELSEWHERE)  # touched just now: it takes a while
    assert take(path, _me(), stale_s=0.5).id == "mine"


def test_what_is_known_to_be_gone() -> None:
    here = this_process()
    assert not is_gone(here)
    assert not is_gone(ELSEWHERE)
    assert is_gone(replace(here, boot="before")) == bool(here.boot)  # the machine was started again
    assert not is_gone(replace(here, pids="pid:[1]", pid=10**9))  # of a container


def test_the_same_job_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = replace(ELSEWHERE, job="12")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert not is_gone(before)  # may be another task of it
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert is_gone(before)


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        ("echo RUNNING", False),
        ("true", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_slurm_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, ended: bool
) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\n{script}\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert job_has_ended("12") is ended
    assert not job_has_ended(None)


def test_of_many_takers_one_gets_it(path: Path) -> None:
    _write(path, replace(this_process(), start=1))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    first = [p.stdout.readline() for p in processes if p.stdout is not None]
    assert first.count("held\n") == 1
    errors = [p.communicate("end\n")[1] for p in processes]
    assert sum("is in use by another run" in error for error in errors) == 3


def test_one_that_stood_still_learns_of_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_S", 1000.0)
    with hold(path) as held:
        held.check()
        _write(path, ELSEWHERE)
        with pytest.raises(ConfigError, match="was taken over while this process stood still"):
            held.check()
    assert json.loads(path.read_text())["id"] == "theirs"  # which is not given away
