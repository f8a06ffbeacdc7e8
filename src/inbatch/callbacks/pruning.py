"""Stops a trial of a sweep that its evaluations show to be behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from inbatch.callbacks.evaluation import Evaluation
from inbatch.callbacks.pauses import PauseWatcher
from inbatch.export.metrics_log import Series
from inbatch.sweep.pruning import MedianPruner
from inbatch.sweep.trials import Mode


class Pruning(Callback, PauseWatcher):
    """Asks a pruner after each evaluation of the trained model; rank 0 decides for all.

    Args:
        pruner: the rule.
        evaluation: whose metric chooses the model.
        folder: of the trial.
        mode: whether a larger or a smaller metric is better.
    """

    def __init__(
        self, pruner: MedianPruner, evaluation: Evaluation, *, folder: Path, mode: Mode
    ) -> None:
        self._pruner = pruner
        self._evaluation = evaluation
        self._folder = folder
        self._mode: Mode = mode
        self._own = Series([], [])
        self.pruned_step: int | None = None

    def on_pause(self, trainer: Trainer, name: str) -> None:
        """Nothing."""

    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Stop after this step where the trial is behind."""
        metric = self._evaluation.best_metric
        if name != "evaluate" or trainer.global_step == 0 or metric not in results:
            return
        self._own.steps.append(trainer.global_step)
        self._own.values.append(results[metric])
        behind = trainer.is_global_zero and self._pruner(
            self._folder, self._own, metric=metric, mode=self._mode
        )
        if trainer.strategy.broadcast(behind):
            self.pruned_step = trainer.global_step
            trainer.should_stop = True
