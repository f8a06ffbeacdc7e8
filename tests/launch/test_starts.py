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
from helpers.launching import ROOT, WITHIN_S, Started, command, environment, run, started
from helpers.runs import TINY, compose_run, metrics, run_train, write_triplets
from inbatch.cluster.stop_request import signal_name
from inbatch.config.check import check_config
from inbatch.errors import ConfigError
from inbatch.run.build import generate_data
from inbatch.strategies.launcher import meeting_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PER_RANK = "${oc.env:LOCAL_RANK}"


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


@pytest.mark.parametrize(
    ("node", "name", "code"),
    [(0, "SIGTERM", 75), (1, "SIGUSR1", 0)],
)
def test_a_rank_that_waits_for_others_leaves_at_once(
    training: list[str], tmp_path: Path, node: int, name: str, code: int
) -> None:
    output = tmp_path / "run"
    with one_of_two_nodes(node, tmp_path, *training, f"output_dir={output}") as run:
        run.wait_until(lambda: (output / "data_report.md").exists() or bool(node))
        run.wait_until(lambda: (output / "checkpoints").exists())
        run.wait_until(run.waits_for_ranks)
        assert run.stop(signal.Signals[name]) == code, run.log.read_text()
        name = signal_name(signal.Signals[name])
        said = f"stopped by {name} before the first step of this start; the same command resumes"
        assert (said in run.log.read_text()) == (node == 0)


def test_a_resumed_run_that_has_not_begun_keeps_its_checkpoint(
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
        assert run.stop(signal.SIGUSR1) == 75, run.log.read_text()
    assert checkpoint.read_bytes() == before
    assert metrics(output) == rows
    assert [row["step"] for row in metrics(run_train(*options))] == list(range(1, 9))


def test_ranks_that_lightning_has_started_leave_too(training: list[str], tmp_path: Path) -> None:
    line = command("lightning", *training, f"output_dir={tmp_path / 'run'}")
    with started(tmp_path, line) as run:
        run.wait_until(lambda: len(run.left()) > 1)
        assert run.stop(signal.SIGINT) == 130, run.log.read_text()
        assert (
            f"stopped by {signal_name(signal.SIGINT)} before the first step" in run.log.read_text()
        )
        assert "Traceback" not in run.log.read_text()


@pytest.mark.parametrize("wait_for", ["import", "meeting"])
def test_ranks_end_with_the_one_that_has_started_them(
    training: list[str], tmp_path: Path, wait_for: str
) -> None:
    options = [*training, f"output_dir={tmp_path / 'run'}", "strategy.timeout_s=36000"]
    with one_of_two_nodes(0, tmp_path, *options, devices=2) as run:
        run.wait_until(lambda: len(run.left()) > 1)
        if wait_for == "meeting":
            run.wait_until(run.waits_for_ranks)
        assert run.stop(signal.SIGKILL) == -signal.SIGKILL


def test_a_port_in_use_is_named_before_ranks_are_started(
    training: list[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other_run:
        port = other_run.getsockname()[1]
        line = command("lightning", *training, f"output_dir={tmp_path / 'run'}")
        with started(tmp_path, line, MASTER_PORT=str(port)) as run:
            assert run.end() == 1, run.log.read_text()
    [error] = [line for line in run.log.read_text().splitlines() if "error" in line]
    assert error.startswith(f"error: MASTER_PORT={port} cannot be used (Address already in use)")
    assert not run.says("Traceback")


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


def test_ranks_that_find_no_demo_make_it(tmp_path: Path) -> None:
    line = command(
        "torchrun",
        *("data=demo", f"data_dir={tmp_path}", f"output_dir={tmp_path / 'run'}"),
        *("global_batch_size=8", "trainer.max_steps=2"),
    )
    ended = run(line, folder=tmp_path, within_s=WITHIN_S)
    assert ended.code == 0, ended.output
    assert not list(tmp_path.glob("demo-*"))


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


def test_a_mistake_of_one_rank_is_printed(tmp_path: Path) -> None:
    data = write_triplets(tmp_path / "triplets-0.jsonl")
    options = [f"data.train.triplets={data.parent}/triplets-{PER_RANK}.jsonl"]
    options += ["global_batch_size=8", f"output_dir={tmp_path / 'run'}"]
    ended = run(command("torchrun", *options), folder=tmp_path, within_s=WITHIN_S)
    assert ended.code != 0
    assert f"rank 1: error: data.train.triplets.path='{data.parent}/triplets-1" in ended.output


def test_a_mistake_of_all_ranks_is_printed_once(tmp_path: Path) -> None:
    options = ["data.train.triplets=none.jsonl", "global_batch_size=8"]
    ended = run(command("torchrun", *options), folder=tmp_path, within_s=WITHIN_S)
    assert ended.code != 0
    assert ended.output.count("error: data.train.triplets.path='none.jsonl' matches no file") == 1
