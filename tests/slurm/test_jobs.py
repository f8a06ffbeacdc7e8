"""Jobs of a real Slurm cluster: two nodes, one rank each, submitted as a user submits them."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest
import torch

from helpers.distributed import run
from helpers.faults import fault
from helpers.launching import ROOT, environment, processes
from helpers.runs import TINY, metrics, train_as_rank, weights, write_triplets
from helpers.slurm_cluster import Cluster
from inbatch.cli.submit import compose_job, submit, write
from inbatch.sweep.trials import read_trials

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm"), pytest.mark.timeout(1200)]
NUM_STEPS = 20
JOB = ["slurm.nodes=2", "slurm.gpus_per_node=0", "slurm.cpus_per_task=1", "slurm.time=10"]


@dataclass(frozen=True)
class Submitted:
    job_id: str
    output: Path
    log: Path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_triplets(tmp_path_factory.mktemp("data") / "triplets.jsonl", 200)


def options(data: Path, output: Path) -> list[str]:
    files = [f"data.train.triplets={data}", f"output_dir={output}"]
    length = ["global_batch_size=8", "trainer.max_epochs=100", f"trainer.max_steps={NUM_STEPS}"]
    return [*files, *length, "strategy.timeout_s=60"]


def send(cluster: Cluster, data: Path, output: Path, *more: str) -> Submitted:
    arguments = [*TINY, *JOB, *options(data, output), *more]
    job = compose_job(arguments, now=datetime.now(), cwd=output.parent)
    given = [
        f"SLURM_CONF={cluster.environ['SLURM_CONF']}",
        f"PYTHONPATH={environment()['PYTHONPATH']}",
    ]
    job_id = submit(write(job), sbatch=["env", *given, *cluster.on("login", "sbatch")])
    return Submitted(job_id, output, job.log(job_id))


def wait_for_rows(cluster: Cluster, sent: Submitted, num_rows: int) -> None:
    """Wait until a run has trained some steps, all of them well before its last."""
    path = sent.output / "metrics.jsonl"
    reached = lambda: path.exists() and path.read_text().count("\n") >= num_rows  # noqa: E731
    cluster.wait(reached, f"step {num_rows}", seconds=600)


def test_a_preempted_job_on_two_nodes_ends_as_ranks_that_nothing_stops(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    run(train_as_rank, 2, options(data, whole))
    sent = send(cluster, data, tmp_path / "run", *fault("hold", step=3))
    wait_for_rows(cluster, sent, 3)
    cluster.ask("scancel", "--signal=USR1", sent.job_id)
    ended = cluster.wait_for_end(sent.job_id, seconds=600)
    log = sent.log.read_text()
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), log
    assert f"job {sent.job_id} is requeued" in log
    assert "run.ranks: 2" in log
    rows, expected = metrics(sent.output), metrics(whole)
    assert [row["step"] for row in rows] == list(range(1, NUM_STEPS + 1))
    assert [row["train/loss"] for row in rows] == [row["train/loss"] for row in expected]
    assert [row["time_s"] for row in rows] == sorted(row["time_s"] for row in rows)
    assert (sent.output / "model" / "README.md").exists()
    found = weights(sent.output)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, found[name]), name


def test_a_cancelled_job_saves_and_stays_cancelled(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    sent = send(cluster, data, tmp_path / "run", *fault("hold", step=3))
    wait_for_rows(cluster, sent, 3)
    cluster.ask("scancel", sent.job_id)
    ended = cluster.wait_for_end(sent.job_id, seconds=600)
    log = sent.log.read_text()
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0"), log
    assert "stopped by SIGTERM" in log
    assert f"job {sent.job_id} is not requeued" in log
    assert (sent.output / "checkpoints" / "last.ckpt").exists()
    assert not (sent.output / "model").exists()


def test_a_killed_rank_ends_the_job_with_the_cause(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    sent = send(cluster, data, tmp_path / "run", *fault("wait", step=3))
    wait_for_rows(cluster, sent, 3)
    here = f"SLURM_CONF={cluster.environ['SLURM_CONF']}"  # other clusters number their jobs alike
    rank_1 = {here, f"SLURM_JOB_ID={sent.job_id}", "SLURM_PROCID=1", "SLURM_STEP_ID=0"}
    os.kill(processes(rank_1)[0], signal.SIGKILL)
    ended = cluster.wait_for_end(sent.job_id, seconds=600)
    assert ended["JobState"] == "FAILED"
    assert "n2: task 1: Killed" in sent.log.read_text()
    assert not (sent.output / "model").exists()


@pytest.mark.exhaustive
def test_a_mistake_on_one_node_fails_the_job(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    """srun then ends the other rank by SIGTERM, before its first step: no reason to start again."""
    rows = tmp_path / "rows-0.jsonl"
    rows.write_bytes(data.read_bytes())
    line = [*TINY, *JOB, *options(rows, tmp_path / "run")]
    job = compose_job(line, now=datetime.now(), cwd=tmp_path)
    job = replace(job, config=job.config.replace("rows-0", "rows-${oc.env:SLURM_PROCID}"))
    sbatch = ["env", f"SLURM_CONF={cluster.environ['SLURM_CONF']}", *cluster.on("login", "sbatch")]
    job_id = submit(write(job), sbatch=sbatch)
    ended = cluster.wait_for_end(job_id, seconds=600)
    log = job.log(job_id).read_text()
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "0"), log
    assert f"rank 1: error: data.train.triplets.path='{tmp_path}/rows-1.jsonl'" in log
    assert "before the first step of this start; job" in log
    assert "is not requeued (it is not being preempted)" in log


def sweep_options(data: Path) -> list[str]:
    """Two trials of five steps."""
    rows = [f"data.train.triplets={data}", f"data.eval={data}", "global_batch_size=8"]
    return [*TINY, *rows, "trainer.max_steps=5", "optimizer.lr=1e-4,1e-2"]


def assert_swept(sweep: Path, log: str) -> None:
    trials = list(read_trials(sweep).values())
    assert [trial.status for trial in trials] == ["completed"] * 2, log
    assert len({trial.result.value for trial in trials}) == 2
    assert [row["status"] for row in csv.DictReader((sweep / "sweep.csv").open())] == [
        "completed"
    ] * 2
    assert (sweep / "best" / "model" / "README.md").exists()
    first, second = (weights(sweep / number) for number in "01")
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_submitted_sweep_trains_trials_of_two_ranks(
    cluster: Cluster, data: Path, tmp_path: Path
) -> None:
    """Both ranks of a trial look for its folder at once, and so do those of the other trial."""
    sweep = tmp_path / "sweep"
    line = [*JOB, "slurm.job=sweep", *sweep_options(data), f"hydra.sweep.dir={sweep}"]
    job = compose_job(line, now=datetime.now(), cwd=tmp_path)
    sbatch = ["env", f"SLURM_CONF={cluster.environ['SLURM_CONF']}", *cluster.on("login", "sbatch")]
    job_id = submit(write(job), sbatch=sbatch)
    for task in "01":
        log = job.directory / f"{job_id}_{task}.log"
        ended = cluster.wait_for_end(f"{job_id}_{task}", seconds=600)
        assert ended["JobState"] == "COMPLETED", log.read_text()
        assert "run.ranks: 2" in log.read_text()
    assert_swept(sweep, log.read_text())


@pytest.mark.exhaustive
def test_a_sweep_submits_its_trials(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    size = ["hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1"]
    line = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", "hydra/launcher=slurm", *size]
    line += [*sweep_options(data), f"hydra.sweep.dir={sweep}"]
    done = subprocess.run(
        cluster.on("login", *line),
        env={**cluster.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_swept(sweep, done.stderr)
