"""Whoever starts the ranks, and wherever they run: the same model. A cut network ends all of them.

Slurm's launcher is in `tests/slurm`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.launching import ROOT, command, environment, run
from helpers.namespaces import Hosts, why_not
from helpers.runs import TINY, metrics, weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.xdist_group("launchers")]
TIMEOUT_S = 10


@pytest.fixture(scope="module")
def alone(training: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks that Lightning has started on this machine."""
    folder = tmp_path_factory.mktemp("alone")
    line = command("lightning", *training, f"output_dir={folder / 'run'}")
    ended = run(line, folder=folder, within_s=600)
    assert ended.code == 0, ended.output
    return folder / "run"


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    reason = why_not()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with Hosts("h1", "h2") as hosts:
        yield hosts


def start(
    hosts: Hosts, folder: Path, *overrides: str
) -> list[tuple[subprocess.Popen[bytes], Path]]:
    """One rank on each host, started by hand; each with its log."""
    started = []
    for rank, host in enumerate(hosts.names):
        log = folder / f"{host}.log"
        line = [sys.executable, str(ROOT / "scripts" / "train.py"), *TINY, *overrides]
        line += ["trainer.devices=1", "trainer.num_nodes=2", f"output_dir={folder / 'run'}"]
        variables = environment(MASTER_ADDR="h1", MASTER_PORT="29400", NODE_RANK=str(rank))
        with log.open("wb") as file:
            options = {"env": variables, "cwd": folder, "stdout": file, "stderr": subprocess.STDOUT}
            started.append((hosts.start(host, line, **options), log))
    return started


def assert_same_model(one: Path, two: Path) -> None:
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(two)[name]), name
    losses = [[row["train/loss"] for row in metrics(output)] for output in (one, two)]
    assert losses[0] == losses[1]


def test_torchrun_ends_as_lightning(training: list[str], tmp_path: Path, alone: Path) -> None:
    line = command("torchrun", *training, f"output_dir={tmp_path / 'run'}")
    ended = run(line, folder=tmp_path, within_s=600)
    assert ended.code == 0, ended.output
    assert_same_model(alone, tmp_path / "run")


def test_two_hosts_end_as_one(
    training: list[str], tmp_path: Path, alone: Path, hosts: Hosts
) -> None:
    for process, log in start(hosts, tmp_path, *training):
        assert process.wait(timeout=600) == 0, log.read_text()
    assert_same_model(alone, tmp_path / "run")


def test_a_cut_link_ends_both_hosts(training: list[str], tmp_path: Path, hosts: Hosts) -> None:
    long = [
        "trainer.max_epochs=10000",
        "trainer.max_steps=100000",
        f"strategy.timeout_s={TIMEOUT_S}",
    ]
    started = start(hosts, tmp_path, *training, *long)
    log = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not log.exists() or log.read_text().count("\n") < 3:
        running = all(process.poll() is None for process, _ in started)
        assert running and time.monotonic() < deadline, started[0][1].read_text()  # noqa: PT018
        time.sleep(0.05)
    hosts.cut("h2")
    cut_at = time.monotonic()
    for process, output in started:
        assert process.wait(timeout=600) != 0
        said = output.read_text()
        # gloo's two words for it: of the collective that waited, or of another one on the same pair
        waited = f"Timed out waiting {TIMEOUT_S * 1000}ms"
        assert waited in said or "Application timeout caused pair closure" in said, said
    assert time.monotonic() - cut_at < 600  # the training left takes hours
