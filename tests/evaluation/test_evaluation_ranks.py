"""Ranks whose metrics differ in the last bit agree on the best model, and report the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.utils.data import DataLoader

from helpers.distributed import bare_trainer, run
from inbatch.callbacks.evaluation import Evaluation
from inbatch.callbacks.pauses import PauseWatcher
from inbatch.evaluation import Encode

HALF = 0.5
ABOVE = math.nextafter(HALF, 1.0)
BELOW = math.nextafter(HALF, 0.0)
# Each evaluation: the value of rank 0, of rank 1. By their own, rank 1 would choose other steps than rank 0.
VALUES = [(0.2, 0.2), (HALF, HALF), (HALF, ABOVE), (ABOVE, BELOW), (HALF, 0.9), (math.nan, 1.0)]


class Scripted:
    """An evaluator with a rank's own values."""

    name, description, primary_metric = "dev", "Scripted", "dev_score"

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def __call__(self, encode: Encode) -> dict[str, float]:
        return {"dev_score": self.values.pop(0)}


class Shown(Callback, PauseWatcher):
    """Keeps what a pause shows, as the rule that stops a point of a sweep does."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_pause(self, trainer: Trainer, name: str) -> None:
        pass

    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        self.values.append(results["dev_score"])


class Logged(Logger):
    """Keeps what is logged, on every rank."""

    name, version = "logged", ""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.values.append(metrics["eval/dev_score"])

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Steps(LightningModule):
    """Takes steps that change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.encoder = torch.nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        self.manual_backward(self.encoder(batch).sum())
        self.optimizers().step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def train(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """A run with an evaluation before it and after each step."""
    chosen: list[int] = []

    def on_best(trainer: Trainer) -> None:
        # Collective, as the export of a model whose parameters are sharded.
        assert trainer.strategy.reduce(torch.ones(1), reduce_op="sum") == world_size
        chosen.append(trainer.global_step)

    evaluation = Evaluation(
        [Scripted([values[rank] for values in VALUES])], every_steps=1, on_best=on_best
    )
    shown, logged = Shown(), Logged()
    trainer = bare_trainer(
        world_size,
        max_steps=len(VALUES) - 1,
        logger=logged,
        log_every_n_steps=1,
        callbacks=[evaluation, shown],
        default_root_dir=folder,
    )
    rows = DataLoader(list(torch.zeros(world_size * len(VALUES), 1)), batch_size=1)
    trainer.fit(Steps(), rows)
    return {
        "chosen": chosen,
        "shown": shown.values,
        "logged": logged.values,
        **evaluation.state_dict(),
    }


def test_the_metrics_and_the_choice_of_rank_0_are_those_of_all(tmp_path: Path) -> None:
    first, second = run(train, 2, tmp_path, timeout_s=60)
    assert first["chosen"] == second["chosen"] == [1, 3]
    own = [values[0] for values in VALUES]
    for found in (first, second):
        for values in (found["shown"], found["logged"]):
            assert values[:-1] == own[:-1]
            assert math.isnan(values[-1])
        assert (found["best_value"], found["best_step"]) == (ABOVE, 3)
        assert found["best"] == {"dev_score": ABOVE}
        assert found["first"] == {"dev_score": VALUES[0][0]}
        assert math.isnan(found["last"]["dev_score"])


@pytest.mark.parametrize("mode", ["max", "min"])
def test_one_process_chooses_by_its_own_metrics(mode: Any) -> None:
    scores = [0.3, 0.1, 0.4, 0.4]
    chosen: list[int] = []
    evaluation = Evaluation(
        [Scripted(scores.copy())],
        every_steps=1,
        at_start=False,
        mode=mode,
        on_best=lambda trainer: chosen.append(trainer.global_step),
    )
    trainer = bare_trainer(1, max_steps=len(scores), callbacks=[evaluation])
    trainer.fit(Steps(), DataLoader(list(torch.zeros(len(scores), 1)), batch_size=1))
    assert chosen == {"max": [1, 3], "min": [1, 2]}[mode]
