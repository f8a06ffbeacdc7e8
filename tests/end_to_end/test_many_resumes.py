"""A run that is stopped again and again, above all where epochs end, against one that never is."""

from __future__ import annotations

import json
import signal
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import metrics, run_train, run_with, weights, write_triplets
from inbatch.callbacks.evaluation import Evaluation
from inbatch.cluster.stop_request import Preempted, StopRequest
from inbatch.folder.model import step_of


class KilledError(Exception):
    """In place of a signal that leaves no time to do anything."""


class KillAfter(Callback):
    """Ends a run after a step, when its checkpoint is written."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if trainer.global_step == self._step:
            raise KilledError


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    rows = write_triplets(tmp_path / "triplets.jsonl", 32)
    write_triplets(tmp_path / "dev.jsonl", 24, seed=50)
    return [f"data.train.triplets={rows}", "global_batch_size=8", "trainer.max_epochs=3"]


def run_until(step: int, *options: str) -> None:
    """Train, and be killed after the step."""
    with pytest.raises(KilledError):
        run_with(KillAfter(step), None, *options)


def assert_same_run(one: Path, other: Path) -> None:
    rows = [[_comparable(row) for row in metrics(folder)] for folder in (one, other)]
    assert rows[0] == rows[1]
    assert sum("train/loss" in row for row in rows[0]) >= 3
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on time."""
    return {key: value for key, value in row.items() if not key.startswith(("perf/", "time"))}


# The rate is large enough to see a temperature that was not restored.
LEARNED = ["loss.temperature=learned", "+learning_rate_mapping.log_scale=0.1"]
MORE: dict[str, list[str]] = {
    "plain": [],
    "rows of five steps": ["trainer.log_every_steps=5"],  # after steps 1, 5, 10 and 12
    "rows of accumulated steps": ["trainer.log_every_steps=4", "accumulate=3"],
    "accumulated": [
        "accumulate=3",
        *LEARNED,
    ],  # four batches an epoch: a step of three, and one of one
    "evaluated": ["data.eval={folder}/dev.jsonl", "evaluation=triplet", "evaluation.every_steps=3"],
    "mixed sources": [
        "+data.train.other={folder}/dev.jsonl",
        "sampler=round_robin",
        "sampler.stop=cycle_until_largest",
        "data.loader.num_workers=1",
    ],
}


def options_of(folder: Path, name: str) -> list[str]:
    return [option.format(folder=folder) for option in MORE[name]]


@pytest.mark.parametrize(
    ("more", "every", "kills"),
    [
        # at the ends of epochs, where the only checkpoints are, and inside of one, which is trained again
        pytest.param("plain", "null", [4, 5, 8, 11], marks=pytest.mark.exhaustive),
        pytest.param("rows of five steps", "1", [1, 4, 7, 10], marks=pytest.mark.exhaustive),
        ("rows of accumulated steps", "1", [2, 3, 5]),
        pytest.param("accumulated", "1", [1, 2, 5], marks=pytest.mark.exhaustive),
        ("evaluated", "2", [4, 7, 10]),
        ("mixed sources", "3", [6, 11, 16]),
    ],
)
def test_killed_many_times(
    tmp_path: Path,
    options: list[str],
    more: str,
    every: str,
    kills: list[int],
) -> None:
    options = [*options, *options_of(tmp_path, more), f"checkpoint.every_n_steps={every}"]
    whole = run_train(*options, f"output_dir={tmp_path / 'whole'}")
    parts = f"output_dir={tmp_path / 'parts'}"
    for step in kills:
        run_until(step, *options, parts)
    assert_same_run(whole, run_train(*options, parts))
    if more == "evaluated":  # a finished run has nothing to do, nor to evaluate
        assert_same_run(whole, run_train(*options, parts))


class StopAfter(Callback):
    """Asks a run to stop after a step, as a signal does."""

    def __init__(self, step: int, stop: StopRequest) -> None:
        self._step, self._stop = step, stop

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if trainer.global_step == self._step and trainer.is_global_zero:
            self._stop.number = signal.SIGTERM


def _stopped(rank: int, world_size: int, step: int, overrides: list[str]) -> None:
    """Train, and stop soon after the step with a checkpoint."""
    quiet()
    workers_of_ranks()
    stop = StopRequest()
    with pytest.raises(Preempted):
        run_with(StopAfter(step, stop), stop, *overrides)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("strategy", "stops"), [("ddp", (2, 6)), ("deepspeed_stage_2", (6,))])
def test_a_row_that_a_stop_cuts_in_two(
    tmp_path: Path, options: list[str], strategy: str, stops: tuple[int, ...]
) -> None:
    options = [*options, *LEARNED, f"strategy={strategy}", "trainer.log_every_steps=5"]
    options += ["trainer.max_steps=9", "data.loader.num_workers=1"]
    run(_train, 2, [*options, f"output_dir={tmp_path / 'whole'}"])
    parts = [*options, f"output_dir={tmp_path / 'parts'}"]
    for step in stops:
        run(_stopped, 2, step, parts)
    run(_train, 2, parts)
    steps = [row["step"] for row in metrics(tmp_path / "parts")]
    assert steps == [1, 5, 9]
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def _train(rank: int, world_size: int, overrides: list[str]) -> None:
    quiet()
    workers_of_ranks()
    run_train(*overrides)


def workers_of_ranks() -> None:
    """Let this rank start workers, which are children of a daemon."""
    current_process()._config["daemon"] = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("strategy", "ranks", "ends"),
    [("auto", 1, (1, 2, 3)), pytest.param("fsdp", 2, (1, 3), marks=pytest.mark.exhaustive)],
)
def test_made_longer(
    tmp_path: Path, options: list[str], strategy: str, ranks: int, ends: tuple[int, ...]
) -> None:
    """Epochs of two steps, and more of them at each start."""
    options = [*options, *LEARNED, f"strategy={strategy}", "global_batch_size=16"]
    run(_train, ranks, [*options, f"output_dir={tmp_path / 'whole'}"])
    for epochs in ends:
        longer = [f"trainer.max_epochs={epochs}", f"output_dir={tmp_path / 'parts'}"]
        run(_train, ranks, [*options, *longer])
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("kill", [6, 8])
def test_model_and_record_are_of_one_step(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, kill: int
) -> None:
    """Killed after evaluations that no checkpoint knows of, and resumed without them."""
    monkeypatch.setattr(Evaluation, "_improved", lambda evaluation, value: True)
    evaluated = [option.format(folder=tmp_path) for option in MORE["evaluated"]]
    run_folder = tmp_path / "run"
    options = [*options, *evaluated, "checkpoint.every_n_steps=5", f"output_dir={run_folder}"]
    run_until(kill, *options, "evaluation.every_steps=1")
    assert step_of(run_folder / "model") == kill
    monkeypatch.setattr(Evaluation, "_improved", lambda evaluation, value: False)
    run_train(*options, "evaluation.every_steps=null", "evaluation.every_epoch=false")
    found = json.loads((run_folder / "result.json").read_text())
    assert step_of(run_folder / "model") == found["step"] == {6: 5, 8: 8}[kill]
