"""A run goes on from what can be trusted, says where it goes on, and counts all its starts."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from helpers.launching import ROOT, started
from helpers.runs import TINY, metrics, run_train, weights, write_triplets
from inbatch.errors import ConfigError


@pytest.fixture(scope="module")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_triplets(tmp_path_factory.mktemp("data") / "triplets.jsonl", 48)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, triplets: Path) -> Path:
    """A run of six steps, saved after each second one."""
    return run_train(*_options(triplets, tmp_path_factory.mktemp("finished") / "run"))


def _options(triplets: Path, output: Path, *more: str) -> list[str]:
    return [
        f"data.train={triplets}",
        "global_batch_size=8",
        "checkpoint.every_n_steps=2",
        "trainer.max_steps=6",
        f"output_dir={output}",
        *more,
    ]


@pytest.fixture
def run(tmp_path: Path, finished: Path) -> Path:
    """A copy of that run, with its configuration in its new place."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, symlinks=True)
    return folder


def _checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_the_last_two_checkpoints_are_there(finished: Path) -> None:
    assert _checkpoints(finished) == ["last.ckpt", "step-00000004.ckpt", "step-00000006.ckpt"]
    assert os.readlink(finished / "checkpoints" / "last.ckpt") == "step-00000006.ckpt"


def test_a_broken_checkpoint_is_named_and_the_one_before_it_taken(
    run: Path, finished: Path, triplets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(run / "checkpoints" / "last.ckpt", 900)
    run_train(*_options(triplets, run))
    said = capsys.readouterr().out
    assert (
        "step-00000006.ckpt is cut off, or no checkpoint; going on from step-00000004.ckpt" in said
    )
    for name, tensor in weights(finished).items():
        assert torch.equal(tensor, weights(run)[name]), name
    assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4, 5, 6]
    assert _checkpoints(run) == _checkpoints(finished)


def test_a_run_never_begins_anew_beside_its_checkpoints(run: Path, triplets: Path) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "checkpoints" / "step-00000006.ckpt").unlink()
    run_train(*_options(triplets, run, "trainer.max_steps=5"))
    assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4, 5]
    (run / "checkpoints" / "step-00000005.ckpt").unlink()
    (run / "checkpoints" / "step-00000004.ckpt").write_bytes(b"")
    with pytest.raises(
        ConfigError, match=r"without a whole checkpoint \(step-00000004.ckpt is empty"
    ):
        run_train(*_options(triplets, run))


def test_an_earlier_checkpoint_leaves_the_later_ones_behind(run: Path, triplets: Path) -> None:
    shutil.copy(
        run / "checkpoints" / "step-00000006.ckpt", run / "checkpoints" / "step-00000009.ckpt"
    )
    earlier = run / "checkpoints" / "step-00000004.ckpt"
    run_train(*_options(triplets, run, f"resume={earlier}", "trainer.max_steps=5"))
    assert _checkpoints(run) == ["last.ckpt", "step-00000004.ckpt", "step-00000005.ckpt"]
    assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4, 5]


def test_leftovers_of_killed_writers_are_removed(run: Path, triplets: Path) -> None:
    for name in (".model.0a1b.new", "checkpoints/.step-00000007.ckpt.new"):
        (run / name).mkdir()
        (run / name / "half").write_text("half")
    run_train(*_options(triplets, run))
    assert not list(run.rglob("*.new"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("optimizer.lr=0.01", "optimizer.lr=0.01 was 0.001 when"),
        ("optimizer=sgd", "optimizer._target_='torch.optim.SGD' was"),
        ("encoder.config.hidden_size=64", "encoder.config.hidden_size=64 was 32 when"),
        ("loss.temperature=0.1", "loss.temperature=0.1 was 0.05 when"),
        ("strategy=deepspeed_stage_1", "strategy cannot go on from"),
    ],
)
def test_what_a_resumed_run_cannot_take_up_is_refused(
    tmp_path: Path, finished: Path, triplets: Path, change: str, said: str
) -> None:
    checkpoint = f"resume={finished / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(ConfigError) as error:
        run_train(
            *_options(triplets, tmp_path / "other", checkpoint, "trainer.max_steps=8", change)
        )
    assert str(error.value).startswith(said)
    assert "encoder=pretrained encoder.model=" in str(error.value)


def test_a_longer_run_says_how_its_learning_rate_goes_on(
    tmp_path: Path, triplets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(triplets, tmp_path / "run", "schedule=linear", "schedule.warmup_ratio=0")
    run_train(*options)
    run_train(*options, "trainer.max_steps=12", "trainer.max_epochs=2")
    said = (
        "the run has 12 steps now, and had 6: the learning rate follows the schedule of 12 steps, "
    )
    assert f"{said}0.0005 here instead of 0" in capsys.readouterr().out
    rates = [row["train/lr"] for row in metrics(tmp_path / "run")]
    assert rates[6] == pytest.approx(1e-3 * 5 / 12)


def test_a_finished_run_trains_nothing_and_keeps_its_record(
    run: Path, triplets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    run_train(*_options(triplets, run))
    said = capsys.readouterr().out
    assert "steps: 6, all trained before: nothing was left to do" in said
    assert "rows: 48, " in said
    assert before == {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}


def test_a_second_start_says_who_holds_the_folder(tmp_path: Path, triplets: Path) -> None:
    long = ["trainer.max_steps=100000", "trainer.max_epochs=-1"]
    options = _options(triplets, tmp_path / "run", *long)
    line = [sys.executable, str(ROOT / "scripts" / "train.py"), *TINY, *options]
    with started(tmp_path, line) as first:
        first.wait_until(lambda: first.says("step 1/"))
        pid = first.process.pid
        with pytest.raises(ConfigError, match=rf"is in use by another run \(process {pid} on "):
            run_train(*options)
    rows = metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert json.loads((tmp_path / "run" / "run.lease").read_text())["process"]["pid"] == pid
