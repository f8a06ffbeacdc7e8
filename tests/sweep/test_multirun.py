"""Whole sweeps through the entry point."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from helpers.runs import TINY, no_plots, run_train, weights, write_triplets
from inbatch.cli.train import main
from inbatch.guide.store import Table
from inbatch.sweep.trials import Trial, read_trials

ROOT = Path(__file__).parents[2]


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    return [
        *TINY,
        f"data.train.triplets={write_triplets(tmp_path / 'triplets.jsonl', 40)}",
        "evaluation=triplet",
        f"data.eval={write_triplets(tmp_path / 'dev.jsonl', 20, seed=50)}",
        "evaluation.every_steps=1",
        "global_batch_size=8",
        "trainer.max_steps=2",
    ]


def _sweep(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *overrides: str,
    code: int = 0,
    plots: bool = False,
) -> list[Trial]:
    """Run a sweep in this process, as the basic launcher does."""
    arguments = ["-m", *overrides, f"hydra.sweep.dir={folder}"]
    monkeypatch.setattr(sys, "argv", [str(ROOT / "scripts" / "train.py"), *arguments])
    no_plots(monkeypatch)
    if not plots:
        monkeypatch.setattr("inbatch.sweep.plots.plot_sweep", lambda *args, **kwargs: [])
    try:
        main()
        ended = 0
    except SystemExit as error:
        ended = int(error.code or 0)
    assert ended == code
    return list(read_trials(folder).values()) if any(folder.glob("*/trial.json")) else []


def test_trials_in_one_process_are_as_alone(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweep"
    wandb_mode = os.environ.get("WANDB_MODE")
    rates = "optimizer.lr=1e-4,1e-3"
    trials = _sweep(
        *(monkeypatch, sweep, *options, rates, "loss.temperature=0.05,-1", "logger=wandb"),
        code=1,
        plots=True,
    )
    assert [trial.status for trial in trials] == ["completed", "failed"] * 2
    assert trials[1].error == "loss.temperature=-1 is not a finite number above 0: set one"
    assert trials[0].result.value is not None
    alone = run_train(*options, "optimizer.lr=1e-3", f"output_dir={tmp_path / 'alone'}")
    after_others = weights(sweep / "2")
    for name, tensor in weights(alone).items():
        assert torch.equal(tensor, after_others[name]), name
    for number in "02":
        assert len(list((sweep / number).glob("wandb/offline-run-*"))) == 1
    for name in ("sweep.csv", "best/model/model.safetensors", "plots/parallel_coordinates.png"):
        assert (sweep / name).exists(), name
    assert os.environ.get("WANDB_MODE") == wandb_mode  # the logger sets it


def test_a_folder_used_again_keeps_trials_and_adds_others(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweep"
    first = _sweep(monkeypatch, sweep, *options, "optimizer.lr=1e-5,1e-4")
    files = {path: path.stat().st_mtime_ns for path in sweep.rglob("?/*") if path.is_file()}
    both = _sweep(monkeypatch, sweep, *options, "optimizer.lr=1e-4,1e-3,1e-5")
    assert both[:2] == first
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert [(trial.number, trial.parameters["optimizer.lr"], trial.status) for trial in both] == [
        (0, "1e-05", "completed"), (1, "0.0001", "completed"), (2, "0.001", "completed")
    ]  # fmt: skip
    assert (sweep / "sweep.csv").read_text().count("completed") == 3


def test_guide_is_computed_once(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, tiny_bert: Path
) -> None:
    written: list[str] = []
    add = Table.add
    monkeypatch.setattr(
        Table,
        "add",
        lambda *args: written.append(add(*args)) or written[-1],  # type: ignore[func-returns-value]
    )
    trials = _sweep(
        monkeypatch,
        tmp_path / "sweep",
        *options,
        "loss=gist",
        "guide=minilm",
        f"guide.model={tiny_bert}",
        f"guide.store_dir={tmp_path / 'store'}",
        "optimizer.lr=1e-4,1e-3",
    )
    assert [trial.status for trial in trials] == ["completed"] * 2
    assert len(written) == 1


def test_search_prunes_and_ends(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    trials = _sweep(
        monkeypatch,
        tmp_path / "sweep",
        *options,
        "hydra/sweeper=search",
        "hydra.sweeper.trials=3",
        "hydra.sweeper.at_once=2",
        "optimizer.lr=tag(log, interval(1e-4, 1e-2))",
        "loss=multiple_negatives_ranking,multiple_negatives_symmetric_ranking",
    )
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert len({trial.parameters["optimizer.lr"] for trial in trials}) == 3
    assert all(1e-4 <= float(trial.parameters["optimizer.lr"]) <= 1e-2 for trial in trials)
    assert (tmp_path / "sweep" / "best").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("output_dir=here", "set hydra.sweep.dir="),
        ("hydra.launcher._target_=hydra_plugins.nowhere.Launcher", "pip install 'inbatch[sweep]'"),
        ("hydra/sweeper=search", "nothing to search"),
    ],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    override: str,
    message: str,
) -> None:
    if "sweeper" in override:
        pytest.importorskip("optuna")
    _sweep(monkeypatch, tmp_path / "sweep", *options, override, code=1)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_task_of_an_array_runs_its_trial(
    tmp_path: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep, task = tmp_path / "sweep", [*options, "optimizer.lr=1e-4,1e-3", "hydra/launcher=array"]
    trials = _sweep(monkeypatch, sweep, *task, "hydra.launcher.trial=1")
    assert [(p.number, p.parameters["optimizer.lr"], p.status) for p in trials] == [
        (1, "0.001", "completed")
    ]
    assert not (sweep / "sweep.csv").exists()  # the script of the job writes it
    capsys.readouterr()
    _sweep(monkeypatch, tmp_path / "none", *task, "hydra.launcher.trial=2", code=1)
    assert "is not one of the 2 trials of this sweep: set --array=0-1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_trial_with_ranks_of_its_own_is_as_one_on_one_rank(
    tmp_path: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It comes after one in the process of the sweep."""
    sweep = tmp_path / "sweep"
    dropout = ("hidden_dropout_prob", "attention_probs_dropout_prob")  # a rank draws its own
    options = [*options, *(f"+encoder.config.{name}=0" for name in dropout)]
    trials = _sweep(monkeypatch, sweep, *options, "optimizer.lr=1e-2", "trainer.devices=1,2")
    assert [trial.status for trial in trials] == ["completed"] * 2
    said = capfd.readouterr().out
    assert [line for line in said.splitlines() if "run.ranks: " in line][-1].endswith("ranks: 2")
    one, two = (weights(sweep / number) for number in "01")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_trials_side_by_side(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    from joblib.externals.loky import get_reusable_executor

    sweep = tmp_path / "sweep"
    several = ["hydra/launcher=parallel", "loss.temperature=0.05,-1"]
    try:
        trials = _sweep(monkeypatch, sweep, *options, *several, code=1)
    finally:
        get_reusable_executor().shutdown(wait=True)
    assert [trial.status for trial in trials] == ["completed", "failed"]
    assert (sweep / "best").exists()
