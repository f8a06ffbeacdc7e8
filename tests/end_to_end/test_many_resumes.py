"""A run that is stopped again and again, above all where epochs end, against one that never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import TINY, compose_run, metrics, run_train, weights, write_triplets
from inbatch.config.check import check_config
from inbatch.run import callbacks as run_callbacks
from inbatch.run.train import train

STEPS = 12  # three epochs of four


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


def run_until(step: int, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Train, and be killed after the step."""
    original = run_callbacks.make_callbacks

    def make_callbacks(*args: Any, **kwargs: Any) -> run_callbacks.RunCallbacks:
        made = original(*args, **kwargs)
        made.all.append(KillAfter(step))
        return made

    with monkeypatch.context() as patch:
        patch.setattr("inbatch.run.train.make_callbacks", make_callbacks)
        with pytest.raises(KilledError):
            train(check_config(compose_run(*TINY, *options)))


def assert_same_run(one: Path, other: Path) -> None:
    rows = [[_comparable(row) for row in metrics(folder)] for folder in (one, other)]
    assert rows[0] == rows[1]
    assert sum("train/loss" in row for row in rows[0]) >= 3
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on time."""
    return {key: value for key, value in row.items() if not key.startswith(("perf/", "time"))}


MORE: dict[str, list[str]] = {
    "plain": [],
    "accumulated": ["accumulate=3"],  # four batches an epoch: a step of three, and one of one
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
        ("plain", "null", [4, 8]),  # at the end of epochs, where the only checkpoints are
        ("plain", "null", [5, 6, 9, 11]),  # in the middle of one, which is trained again
        ("plain", "1", list(range(1, STEPS))),
        ("accumulated", "null", [2, 4]),
        ("accumulated", "1", [1, 2, 3, 4, 5]),
        ("evaluated", "null", [4, 8]),
        ("evaluated", "2", [4, 7, 8, 10]),
        ("mixed sources", "3", [6, 8, 11, 16]),
    ],
)
def test_killed_many_times(
    tmp_path: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    more: str,
    every: str,
    kills: list[int],
) -> None:
    options = [*options, *options_of(tmp_path, more), f"checkpoint.every_n_steps={every}"]
    whole = run_train(*options, f"output_dir={tmp_path / 'whole'}")
    parts = f"output_dir={tmp_path / 'parts'}"
    for step in kills:
        run_until(step, monkeypatch, *options, parts)
    assert_same_run(whole, run_train(*options, parts))
    # A finished run has nothing to do, however often it is started.
    for _ in range(2):
        assert_same_run(whole, run_train(*options, parts))


def _train(rank: int, world_size: int, overrides: list[str]) -> None:
    quiet()
    run_train(*overrides)


@pytest.mark.parametrize("strategy", ["auto", "fsdp", "deepspeed_stage_2"])
def test_made_longer_twice(tmp_path: Path, options: list[str], strategy: str) -> None:
    options = [*options, f"strategy={strategy}"]
    ranks = 1 if strategy == "auto" else 2
    run(_train, ranks, [*options, f"output_dir={tmp_path / 'whole'}"])
    for epochs in (1, 2, 3):
        longer = [f"trainer.max_epochs={epochs}", f"output_dir={tmp_path / 'parts'}"]
        run(_train, ranks, [*options, *longer])
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
