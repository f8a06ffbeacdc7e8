"""A run that is stopped again and again, above all where epochs end, against one that never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from inbatch import watch
from inbatch.config import check_config
from inbatch.train import train
from runs import TINY, compose_run, metrics, run_train, weights, write_triplets

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
    return [f"data.train.triplets={rows}", "global_batch_size=8", "trainer.max_epochs=3"]


def run_until(step: int, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Train, and be killed after the step."""
    original = watch.make_parts

    def make_parts(*args: Any, **kwargs: Any) -> watch.Parts:
        parts = original(*args, **kwargs)
        parts.callbacks.append(KillAfter(step))
        return parts

    with monkeypatch.context() as patch:
        patch.setattr(watch, "make_parts", make_parts)
        with pytest.raises(KilledError):
            train(check_config(compose_run(*TINY, *options)))


def assert_same_run(one: Path, other: Path) -> None:
    rows = [
        [(r["step"], r["epoch"], r["train/loss"]) for r in metrics(f) if "train/loss" in r]
        for f in (one, other)
    ]
    assert len(rows[0]) == STEPS
    assert rows[0] == rows[1]
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


@pytest.mark.parametrize(
    ("every", "kills"),
    [
        ("null", [4, 8]),  # at the end of epochs, where the only checkpoints are
        ("null", [5, 6, 9, 11]),  # in the middle of one, which is trained again
        ("1", list(range(1, STEPS))),
    ],
)
def test_killed_many_times(
    tmp_path: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    every: str,
    kills: list[int],
) -> None:
    options = [*options, f"checkpoint.every_n_steps={every}"]
    whole = run_train(*options, f"output_dir={tmp_path / 'whole'}")
    parts = f"output_dir={tmp_path / 'parts'}"
    for step in kills:
        run_until(step, monkeypatch, *options, parts)
    assert_same_run(whole, run_train(*options, parts))
    # A finished run has nothing to do, however often it is started.
    for _ in range(2):
        assert_same_run(whole, run_train(*options, parts))


def test_made_longer_twice(tmp_path: Path, options: list[str]) -> None:
    whole = run_train(*options, f"output_dir={tmp_path / 'whole'}")
    for epochs in (1, 2, 3):
        parts = run_train(
            *options, f"trainer.max_epochs={epochs}", f"output_dir={tmp_path / 'parts'}"
        )
    assert_same_run(whole, parts)
