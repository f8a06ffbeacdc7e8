"""What happens before the first step: made-up data, mistakes of one rank, and requests to stop."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from helpers.distributed import free_port
from helpers.distributed import run as run_ranks
from helpers.forked_command import Left, train_command
from helpers.launching import ROOT, Started, command, environment, started
from helpers.runs import TINY, compose_run, metrics, run_train
from inbatch.config.check import check_config
from inbatch.errors import ConfigError
from inbatch.run.build import generate_data
from inbatch.strategies import failed_rank
from inbatch.strategies.launcher import meeting_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def one_of_two_nodes(
    node: int, folder: Path, *overrides: str, devices: int = 1
) -> Iterator[Started]:
    """A node whose other one never comes: it waits where ranks meet, in code that is not Python."""
    line = [sys.executable, str(ROOT / "scripts" / "train.py"), *TINY, *overrides]
    line += [f"trainer.devices={devices}", "trainer.num_nodes=2"]
    port = free_port()
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    server = socket.create_server(("127.0.0.1", port)) if node else None  # else the rank is
    with started(folder, line, **variables, NODE_RANK=str(node)) as run:
        yield replace(run, waits_for_ranks=lambda: _met(server, port))
    if server is not None:
        server.close()


def _met(server: socket.socket | None, port: int) -> bool:
    """Return whether a rank has connected to a server here, or serves others itself."""
    try:
        if server is None:
            socket.create_connection(("127.0.0.1", port)).close()
            return True
        server.settimeout(0.05)
        server.accept()
    except OSError:  # not yet
        return False
    return True


# --- a request to stop -----------------------------------------------------------------------------------


def test_a_rank_of_another_node_that_waits_leaves_at_once_without_a_word(
    training: list[str], tmp_path: Path
) -> None:
    with one_of_two_nodes(1, tmp_path, *training, f"output_dir={tmp_path / 'run'}") as run:
        run.wait_until(run.waits_for_ranks)
        assert run.stop(signal.SIGUSR1) == 0, run.log.read_text()
        assert not run.says("stopped by")


def test_a_resumed_run_that_waits_for_others_leaves_at_once_and_keeps_its_checkpoint(
    training: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    options = [*training, f"output_dir={output}"]
    run_train(*options, "trainer.max_steps=3")
    checkpoint = output / "checkpoints" / "last.ckpt"
    before, rows = checkpoint.read_bytes(), metrics(output)
    report = output / "data_report.md"
    report.unlink()
    with one_of_two_nodes(0, tmp_path, *options) as run:
        run.wait_until(report.exists)
        run.wait_until(run.waits_for_ranks)
        assert run.stop(signal.SIGTERM) == 75, run.log.read_text()
        said = "stopped by SIGTERM before the first step of this start; the same command resumes"
        assert run.says(said)
    assert checkpoint.read_bytes() == before
    assert metrics(output) == rows
    assert [row["step"] for row in metrics(run_train(*options))] == list(range(1, 9))


def test_ranks_that_lightning_has_started_leave_too(training: list[str], tmp_path: Path) -> None:
    line = command("lightning", *training, f"output_dir={tmp_path / 'run'}")
    with started(tmp_path, line) as run:
        run.wait_until(lambda: len(run.left()) > 1)
        assert run.stop(signal.SIGINT) == 130, run.log.read_text()
        assert run.says("stopped by Ctrl-C before the first step")
        assert "Traceback" not in run.log.read_text()


def test_ranks_that_wait_for_others_end_with_the_one_that_has_started_them(
    training: list[str], tmp_path: Path
) -> None:
    options = [*training, f"output_dir={tmp_path / 'run'}", "strategy.timeout_s=36000"]
    with one_of_two_nodes(0, tmp_path, *options, devices=2) as run:
        run.wait_until(lambda: len(run.left()) > 1)
        run.wait_until(run.waits_for_ranks)
        assert run.stop(signal.SIGKILL) == -signal.SIGKILL


def test_a_rank_that_begins_after_the_end_of_its_first_one_ends_at_once() -> None:
    """Before it imports its libraries."""
    code = (
        "from inbatch.cluster.first_rank import end_with_first_rank\n"
        "end_with_first_rank()\n"
        "import time; time.sleep(60)"
    )
    gone = subprocess.Popen(["true"])
    gone.wait()
    variables = environment(INBATCH_STARTED_BY=str(gone.pid), LOCAL_RANK="1")
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr == "error: rank 0 was killed, so rank 1 ends as well\n"


def train_and_count_ranks(
    rank: int, world_size: int, folder: Path, *overrides: str
) -> tuple[Left, int]:
    left = train_command(rank, world_size, folder, *overrides)
    return left, len(failed_rank._started)


def test_a_port_in_use_is_named_before_ranks_are_started(
    training: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other_run:
        port = other_run.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        options = [*training, f"output_dir={tmp_path / 'run'}", "trainer.devices=2"]
        [(left, num_started)] = run_ranks(train_and_count_ranks, 1, tmp_path, *options)
    assert (left.code, left.error, num_started) == (1, None, 0)
    [error] = [line for line in left.said.splitlines() if "error" in line]
    assert error.startswith(f"error: MASTER_PORT={port} cannot be used (Address already in use)")
    assert "Traceback" not in left.said


def test_a_port_that_another_run_takes_meanwhile_is_named_too() -> None:
    with socket.create_server(("", free_port())) as other_run:
        port = other_run.getsockname()[1]
        with pytest.raises(ConfigError, match="as where another run uses it"), meeting_ranks():
            TCPStore("127.0.0.1", port, 2, is_master=True)


SLOW = """
import signal, sys, time
from inbatch.cluster.stop_request import StopRequest
stop = StopRequest(lambda name: print(name, flush=True) or 75)
with stop:
    if sys.argv[1] == "begun":
        stop.begin()
    try:
        print("ready", flush=True)
        time.sleep(2)
    finally:
        print("tidy", flush=True)
print("noted", stop.number, flush=True)
"""


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [("starting", 75, "SIGTERM\ntidy\n"), ("begun", 0, f"tidy\nnoted {int(signal.SIGTERM)}\n")],
)
def test_a_process_that_runs_python_leaves_in_order(state: str, code: int, expected: str) -> None:
    line = [sys.executable, "-c", SLOW, state]
    with subprocess.Popen(line, stdout=subprocess.PIPE, env=environment(), text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == expected
    assert process.returncode == code


FORKING = """
import multiprocessing, os, signal, time
from inbatch.cluster.stop_request import StopRequest
with StopRequest(lambda name: 75):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1,))
    child.start()
    os.kill(child.pid, signal.SIGUSR1)
    child.join()
    time.sleep(0.5)
print("on")
"""


def test_signals_of_forked_processes_are_their_own() -> None:
    line = [sys.executable, "-c", FORKING]
    done = subprocess.run(line, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (0, "on\n"), done.stderr


# --- data and mistakes of a rank -------------------------------------------------------------------------


def test_half_a_demo_is_completed(tmp_path: Path) -> None:
    config = check_config(compose_run("data=demo", "encoder=tiny", f"data_dir={tmp_path}"))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "train-0.parquet").write_bytes(b"half")
    generate_data(config.data)
    whole = tmp_path / "whole"
    config.data.generate["folder"] = str(whole / "demo")
    generate_data(config.data)
    names = [path.relative_to(whole) for path in whole.rglob("*.*")]
    assert len(names) == 6
    for name in names:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_a_mistake_of_all_ranks_is_printed_by_the_first_and_later_by_those_still_there(
    tmp_path: Path,
) -> None:
    """Launchers end the others with the first, so what all would say is printed once."""
    options = ["data.train.triplets=none.jsonl", "global_batch_size=8"]
    first, second = run_ranks(train_command, 2, tmp_path, *options)
    error = "error: data.train.triplets.path='none.jsonl' matches no file"
    for left, start in ((first, error), (second, f"rank 1: {error}")):
        assert (left.code, left.error) == (1, None)
        assert left.said.count("error: ") == 1
        assert f"\n{left.said}".count(f"\n{start}") == 1
    assert second.at_s - first.at_s > 5
