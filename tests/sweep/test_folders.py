"""A trial has one folder in its sweep, whatever its number in the command that starts it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from helpers.sweep_folder import write
from inbatch.sweep.folders import trial_folder
from inbatch.sweep.trials import Trial, read_trials, settings_of, write_trial


def start(sweep: Path, number: int, *overrides: str) -> str:
    """The folder of a trial, with its record in it."""
    name = trial_folder(sweep, number, overrides)
    write_trial(Trial(number=int(name), overrides=overrides), sweep / name)
    return name


def test_a_first_sweep_numbers_as_hydra_does(tmp_path: Path) -> None:
    sweep = tmp_path / "not" / "yet"
    assert [start(sweep, n, f"lr={n}") for n in (1, 0, 2)] == ["1", "0", "2"]


def test_trials_are_found_again_and_new_ones_added(tmp_path: Path) -> None:
    for number, rate in enumerate(("1e-05", "0.0001")):
        start(tmp_path, number, "data.train=x.csv", f"++lr={rate}")
    again = [start(tmp_path, n, "data.train=x.csv", f"lr={r}") for n, r in enumerate((1e-4, 3, 4))]
    assert again == ["1", "2", "3"]
    assert {trial.number: trial.parameters["lr"] for trial in read_trials(tmp_path).values()} == {
        0: "1e-05", 1: "0.0001", 2: "3", 3: "4"
    }  # fmt: skip


def test_a_folder_without_claims_is_recognised_too(tmp_path: Path) -> None:
    write(tmp_path, 7, 0.5, lr=3)
    assert start(tmp_path, 0, "sampler=batch", "lr=3") == "7"


def test_a_trial_that_was_killed_before_its_record_keeps_its_folder(tmp_path: Path) -> None:
    name = trial_folder(tmp_path, 0, ["lr=1"])
    assert [trial_folder(tmp_path, number, ["lr=1"]) for number in (0, 5)] == [name, name]
    (tmp_path / name).rmdir()
    assert trial_folder(tmp_path, 0, ["lr=1"]) == name
    assert (tmp_path / name).is_dir()


def test_a_folder_of_something_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    assert trial_folder(tmp_path, 0, ["lr=1"]) == "1"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (["lr=1e-4", "seed=1"], ["++seed=1", "+lr=0.0001"], True),
        (["lr=1", "lr=2"], ["lr=2"], True),
        (["~a", "b=x"], ["b=x", "~a"], True),
        (["~a"], ["a="], False),
        (["lr=1"], ["lr=2"], False),
        (["name=1e-4x"], ["name=0.0001x"], False),
    ],
)
def test_what_a_trial_is_recognised_by(one: list[str], other: list[str], same: bool) -> None:
    assert (settings_of(one) == settings_of(other)) is same


def _ask(sweep: Path, start: multiprocessing.synchronize.Barrier, results) -> None:  # type: ignore[no-untyped-def, name-defined]
    start.wait()
    results.put([(n, trial_folder(sweep, n % 2, [f"lr={n}"])) for n in range(10)])


def test_ranks_and_tasks_that_ask_at_once_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results, barrier = context.Queue(), context.Barrier(6)
    processes = [context.Process(target=_ask, args=(tmp_path, barrier, results)) for _ in range(6)]
    for process in processes:
        process.start()
    answers = [dict(results.get(timeout=60)) for _ in processes]
    for process in processes:
        process.join()
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0].values())) == 10
    kept = {path.name for path in tmp_path.iterdir() if path.name.isdecimal()}
    assert kept == set(answers[0].values())
