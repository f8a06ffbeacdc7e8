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
NUM_STEPS = 8


def demo(folder: Path) -> list[str]:
    """A few steps on generated data, which the first rank makes."""
    return [
        "data=demo",
        f"data_dir={folder}",
        "global_batch_size=8",
        f"trainer.max_steps={NUM_STEPS}",
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks that Lightning has started on this machine."""
    folder = tmp_path_factory.mktemp("alone")
    line = command("lightning", *demo(folder), f"output_dir={folder / 'run'}")
    ended = run(line, folder=folder)
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


def losses(output: Path) -> list[float]:
    """Of each step: one that differs would show that the weights before it did."""
    rows = [row for row in metrics(output) if "train/loss" in row]
    assert [row["step"] for row in rows][:NUM_STEPS] == list(range(1, NUM_STEPS + 1))
    return [row["train/loss"] for row in rows]


def assert_same_model(one: Path, two: Path) -> None:
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(two)[name]), name
    assert losses(one) == losses(two)


@pytest.mark.exhaustive
def test_torchrun_ends_as_lightning(tmp_path: Path, alone: Path) -> None:
    line = command("torchrun", *demo(tmp_path), f"output_dir={tmp_path / 'run'}")
    ended = run(line, folder=tmp_path, new=True)
    assert ended.code == 0, ended.output
    assert not list(tmp_path.glob("demo-*"))  # both ranks have found no data, and one has made them
    assert_same_model(alone, tmp_path / "run")


def test_two_hosts_train_as_one_until_a_cut_link_ends_both(
    tmp_path: Path, alone: Path, hosts: Hosts
) -> None:
    long = ["trainer.max_epochs=10000", "trainer.max_steps=100000"]
    timeout = f"strategy.timeout_s={TIMEOUT_S}"
    started = start(hosts, tmp_path, *demo(alone.parent), *long, timeout)
    log = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not log.exists() or log.read_text().count("\n") < NUM_STEPS:
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
    assert losses(tmp_path / "run")[:NUM_STEPS] == losses(alone)
