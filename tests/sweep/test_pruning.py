"""Trials that are behind the finished ones stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.runs import metrics, run_train, write_triplets
from helpers.sweep_folder import write
from inbatch.errors import ConfigError
from inbatch.export.metrics_log import Series
from inbatch.sweep.pruning import MedianPruner, is_behind
from inbatch.sweep.trials import Mode, Status, Trial, read_result, write_trial

OTHERS = [
    Series([1, 2, 3], [0.2, 0.4, 0.9]),
    Series([1, 3], [0.6, 0.9]),  # at step 2 it still has 0.6
    Series([2], [0.5]),
    Series([1], [0.0]),  # has ended before step 2
]


@pytest.mark.parametrize(
    ("own", "behind"),
    [
        (Series([1, 2], [0.3, 0.45]), True),  # the median at step 2 is 0.5
        (Series([1, 2], [0.3, 0.55]), False),
        (Series([1, 2], [0.7, 0.1]), False),  # its best counts, not its last
        (Series([1], [0.1]), True),  # three others have a value at step 1, median 0.2
        (Series([1], [0.3]), False),
        (Series([], []), False),
    ],
)
def test_rule(own: Series, behind: bool) -> None:
    settings = {"min_trials": 2, "min_step": 0}
    assert is_behind(own, OTHERS, mode="max", **settings) is behind


def test_rule_waits() -> None:
    own = Series([1], [0.1])
    assert not is_behind(own, OTHERS, mode="max", min_trials=4, min_step=0)
    assert not is_behind(own, OTHERS, mode="max", min_trials=1, min_step=2)


@pytest.mark.parametrize(("mode", "value"), [("max", 0.1), ("min", 0.9)])
def test_agrees_with_optuna(mode: Mode, value: float) -> None:
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(
        direction={"max": "maximize", "min": "minimize"}[mode],
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0),
    )
    others = [Series([1, 2], [0.4, 0.6]), Series([1, 2], [0.5, 0.5]), Series([1, 2], [0.6, 0.4])]
    for other in others:
        trial = study.ask()
        for step, at_step in zip(*other):
            trial.report(at_step, step)
        study.tell(trial, other.values[-1])
    for first in (value, 1 - value, 0.5):
        trial = study.ask()
        trial.report(first, 1)
        settings = {"mode": mode, "min_trials": 2, "min_step": 0}
        assert is_behind(Series([1], [first]), others, **settings) == trial.should_prune()


QUESTION: dict[str, Any] = {"metric": "eval_cosine_accuracy", "mode": "max"}


def test_all_trials_that_reached_the_step_count(tmp_path: Path) -> None:
    own = write(tmp_path, 0, None, status="running")
    pruner = MedianPruner(min_trials=1)
    write(tmp_path, 1, 0.9, status="failed", course=[(2, 0.9)])
    write(tmp_path, 2, 0.9, course=[(0, 0.9), (1, 0.9)])
    assert not pruner(own, 2, 0.1, **QUESTION)
    write(tmp_path, 3, 0.9, status="pruned", course=[(0, 0.0), (2, 0.9)])
    assert pruner(own, 2, 0.1, **QUESTION)


def test_the_median_falls_again_with_what_was_pruned(tmp_path: Path) -> None:
    """Five good trials do not stop every later one for ever."""
    pruner, stopped = MedianPruner(min_trials=1), []
    write(tmp_path, 0, 0.9, course=[(1, 0.9)])
    for number in range(1, 6):
        own = write(tmp_path, number, None, status="running")
        stopped.append(pruner(own, 1, 0.5, **QUESTION))
        status: Status = "pruned" if stopped[-1] else "completed"
        write(tmp_path, number, 0.5, status=status, course=[(1, 0.5)])
    assert stopped == [True, True, False, False, False]


def test_evaluations_before_a_restart_count(tmp_path: Path) -> None:
    write(tmp_path, 0, 0.5, course=[(1, 0.5), (2, 0.5)])
    own = write(tmp_path, 1, None, status="running", course=[(0, 0.9), (1, 0.7)])
    assert not MedianPruner(min_trials=1)(own, 2, 0.1, **QUESTION)
    fresh = write(tmp_path, 2, None, status="running", course=[(0, 0.9)])
    assert MedianPruner(min_trials=1)(fresh, 2, 0.1, **QUESTION)


def test_run_stops_and_says_so(tmp_path: Path) -> None:
    options = [
        f"data.train.triplets={write_triplets(tmp_path / 'triplets.jsonl')}",
        "evaluation=triplet",
        f"data.eval={write_triplets(tmp_path / 'dev.jsonl', 20, seed=50)}",
        "evaluation.every_steps=2",
        "global_batch_size=8",
        "pruner=median",
        "pruner.min_trials=1",
        f"output_dir={tmp_path / 'sweep' / '1'}",
    ]
    with pytest.raises(ConfigError, match="--multirun"):
        run_train(*options)
    write(tmp_path / "sweep", 0, 2.0, course=[(2, 0.0), (4, 2.0)])
    write_trial(Trial(number=1, overrides=()), tmp_path / "sweep" / "1")
    folder = run_train(*options)
    assert read_result(folder).pruned
    assert metrics(folder)[-1]["step"] == 4
    assert (folder / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("end", ["trainer.max_steps=4", "trainer.max_epochs=1"])
def test_a_trial_that_is_behind_at_its_last_step_is_complete(tmp_path: Path, end: str) -> None:
    rows = write_triplets(tmp_path / "rows.jsonl", 32)  # four steps
    own = tmp_path / "sweep" / "1"
    write(tmp_path / "sweep", 0, 2.0, course=[(4, 2.0)])
    write_trial(Trial(number=1, overrides=()), own)
    run_train(
        f"data.train={rows}", f"data.eval={rows}", "evaluation=triplet", "global_batch_size=8", end,
        "pruner=median", "pruner.min_trials=1", f"output_dir={own}",
    )  # fmt: skip
    assert metrics(own)[-1]["step"] == 4
    assert not read_result(own).pruned


def test_bad_settings() -> None:
    with pytest.raises(ConfigError, match=r"pruner.min_trials=0"):
        MedianPruner(min_trials=0)
