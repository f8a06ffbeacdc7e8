"""A signal ends a run with a checkpoint, from which it resumes as if nothing had happened."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from helpers import distributed
from helpers.faults import fault
from helpers.keystone import collectives_of, quiet
from helpers.runs import TINY, compose_run, metrics, no_plots, weights, write_triplets
from inbatch.callbacks.run_id import with_run_id
from inbatch.cluster.requeue import job_fields, leave_early, preempted_exits, requeue, why_not
from inbatch.cluster.stop_request import Preempted, Saved, StopRequest, signal_name
from inbatch.config.check import check_config
from inbatch.run.train import train

group = pytest.mark.xdist_group("signals_of_runs")  # these compare with one run

SHOWN = (
    "JobId=7 JobName=run UserId=root(0) JobState=RUNNING Reason=None Requeue=1 Restarts=0 BatchFlag=1 "
    "Command=a job.sh"
)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Six steps, four an epoch."""
    data = write_triplets(tmp_path_factory.mktemp("data") / "triplets.jsonl", 32)
    files = [f"data.train.triplets={data}"]
    return [*files, "global_batch_size=8", "trainer.max_epochs=2", "trainer.max_steps=6"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, options: list[str]) -> Path:
    """A run that nothing stops."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert run_until_stopped(output, *options) is None
    return output


def run_until_stopped(output: Path, *overrides: str) -> Preempted | None:
    """Train as the entry point does, without plots; what ended the run, if it was a signal."""
    with StopRequest() as stop, pytest.MonkeyPatch.context() as patch:
        no_plots(patch)
        try:
            train(check_config(compose_run(*TINY, *overrides, f"output_dir={output}")), stop)
        except Preempted as stopped:
            return stopped
    return None


def assert_same(run: Path, whole: Path) -> None:
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(run)[name]), name
    steps = [(row["step"], row["train/loss"]) for row in metrics(run)]
    assert steps == [(row["step"], row["train/loss"]) for row in metrics(whole)]


# inside an epoch of 4 batches, and at its end, where `Checkpoints` has saved already
@group
@pytest.mark.parametrize(("name", "step"), [("SIGUSR1", 3), ("SIGTERM", 4), ("SIGINT", 5)])
def test_a_signal_ends_a_run_that_goes_on(
    tmp_path: Path, options: list[str], whole: Path, name: str, step: int
) -> None:
    run = tmp_path / "run"
    stopped = run_until_stopped(run, *options, *fault(name, step=step))
    name, last = signal_name(signal.Signals[name]), run / "checkpoints" / "last.ckpt"
    assert str(stopped) == f"stopped by {name} after step {step}, which {last} holds"
    assert not (run / "model").exists()
    os.kill(os.getpid(), signal.SIGUSR1)  # comes late; would end this process
    assert run_until_stopped(run, *options) is None
    assert_same(run, whole)


def test_a_signal_in_the_last_step_comes_too_late(tmp_path: Path, options: list[str]) -> None:
    assert run_until_stopped(tmp_path / "run", *options, *fault("SIGUSR1", step=6)) is None
    assert (tmp_path / "run" / "model" / "README.md").exists()


def _ranks(rank: int, world_size: int, output: Path, overrides: list[str]) -> str:
    quiet()
    return str(run_until_stopped(output, *overrides))


def test_ranks_that_are_signalled_apart_stop_together(tmp_path: Path, options: list[str]) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    apart = [*fault("SIGUSR1", rank=1, step=1), *fault("SIGTERM", rank=0, step=2, name="later")]
    (first, second) = distributed.run(_ranks, 2, run, [*options, *apart])
    # sent after step 1, read after step 2
    assert (
        first
        == second
        == f"stopped by SIGUSR1 after step 2, which {run / 'checkpoints' / 'last.ckpt'} holds"
    )
    assert distributed.run(_ranks, 2, run, options) == ["None", "None"]
    assert distributed.run(_ranks, 2, whole, options) == ["None", "None"]
    assert_same(run, whole)


def _count(rank: int, world_size: int, output: Path, overrides: list[str]) -> dict[str, int]:
    quiet()
    return collectives_of(partial(run_until_stopped, output, *overrides))


def test_agreeing_takes_one_small_collective_a_step(tmp_path: Path, options: list[str]) -> None:
    """Lightning's own agreement, a broadcast before each step, is off."""
    logged = "trainer.log_every_steps=100"
    short, long = (
        distributed.run(_count, 2, tmp_path / str(n), [*options, logged, f"trainer.max_steps={n}"])[
            0
        ]
        for n in (2, 3)
    )
    more = {name: count - short[name] for name, count in long.items() if count != short[name]}
    # in a step: embeddings; their gradients (gloo reduces and scatters by an all-reduce), those of
    # parameters, and the agreement
    assert more == {"gloo:all_gather": 1, "gloo:all_reduce": 3}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"JobState": "COMPLETING"}, "it is COMPLETING"),
        ({"BatchFlag": "0"}, "it is not a batch job"),
        ({"Requeue": "0"}, "it was submitted with --no-requeue"),
    ],
)
def test_which_jobs_are_requeued(change: dict[str, str], reason: str | None) -> None:
    assert why_not({**job_fields(SHOWN), **change}) == reason


@pytest.mark.parametrize(
    ("name", "preempt_time", "requeued"),
    [
        ("SIGUSR1", "None", True),
        ("SIGTERM", "None", False),  # as srun sends it where another rank has failed
        ("SIGTERM", "2026-01-01T00:00:00", True),
    ],
)
def test_which_jobs_are_requeued_before_their_first_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    preempt_time: str,
    requeued: bool,
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        f'#!/bin/sh\n[ "$1" = requeue ] || echo "{SHOWN} PreemptTime={preempt_time}"\n'
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert leave_early(name, first=False) == 0
    assert leave_early(name, first=True) == (75 if requeued else 143)
    said = capsys.readouterr().err
    assert ("job 7 is requeued" in said) == requeued
    assert ("(it is not being preempted)" in said) != requeued


def test_outside_slurm_nothing_is_requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert requeue({}).said == "the same command resumes from there"
    monkeypatch.setenv("PATH", str(tmp_path))  # as in a container
    told, refused = requeue({"SLURM_JOB_ID": "7"})
    assert refused
    assert told.startswith("job 7 is not requeued (")
    assert "scontrol" in told


@pytest.mark.parametrize(
    ("number", "rank", "code"),
    [
        (signal.SIGUSR1, 0, 75),
        (signal.SIGUSR1, 1, 0),
        (signal.SIGINT, 0, 130),
        (signal.SIGINT, 1, 0),
    ],
)
def test_only_rank_0_reports(
    number: signal.Signals,
    rank: int,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(SystemExit) as ended, preempted_exits():
        raise Preempted(number=number, saved=Saved(3, Path("last.ckpt")), rank=rank)
    assert ended.value.code == code
    name = "Ctrl-C" if number == signal.SIGINT else "SIGUSR1"
    said = f"stopped by {name} after step 3, which last.ckpt holds; the same command resumes"
    assert (said in capsys.readouterr().err) == (rank == 0)


def test_a_ctrl_c_requeues_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr("inbatch.cluster.requeue.ask_slurm", lambda *words: pytest.fail(str(words)))
    assert leave_early("Ctrl-C", first=True, go_on="nothing is lost") == 130
    with pytest.raises(SystemExit), preempted_exits("nothing is lost"):
        raise Preempted(number=signal.SIGINT, saved=Saved(3, Path("last.ckpt")), rank=0)
    assert capsys.readouterr().err.count("; nothing is lost\n") == 2


def test_a_run_keeps_its_id(tmp_path: Path) -> None:
    node = {"_target_": "lightning.pytorch.loggers.WandbLogger", "id": None}
    first = with_run_id(node, tmp_path / "id.txt", fresh=True)["id"]
    assert len(first) == 8
    assert with_run_id(node, tmp_path / "id.txt", fresh=False)["id"] == first
    assert with_run_id(node, tmp_path / "id.txt", fresh=True)["id"] != first
    assert with_run_id({**node, "id": "mine"}, tmp_path / "id.txt", fresh=False)["id"] == "mine"
    other = {"_target_": "lightning.pytorch.loggers.CSVLogger"}
    assert with_run_id(other, tmp_path / "id.txt", fresh=True) == other
