"""Stops a trial of a sweep that its evaluations show to be behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from inbatch.callbacks.evaluation import Evaluation
from inbatch.callbacks.pauses import PauseWatcher
from inbatch.sweep.pruning import MedianPruner
from inbatch.sweep.trials import Mode


class Pruning(Callback, PauseWatcher):
    """Asks a pruner after each evaluation of the trained model but the last; rank 0 decides for all.

    After the last step there is nothing to save, and the trial is complete.

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
        self.pruned_step: int | None = None

    def on_pause(self, trainer: Trainer, name: str) -> None:
        """Nothing."""

    def on_resume(self, trainer: Trainer, name: str, results: Mapping[str, float]) -> None:
        """Stop after this step where the trial is behind."""
        metric = self._evaluation.best_metric
        step = trainer.global_step
        if name != "evaluate" or step == 0 or metric not in results or _is_over(trainer):
            return
        behind = trainer.is_global_zero and self._pruner(
            self._folder, step, results[metric], metric=metric, mode=self._mode
        )
        if trainer.strategy.broadcast(behind):
            self.pruned_step = step
            trainer.should_stop = True


def _is_over(trainer: Trainer) -> bool:
    """Whether the step that has just ended is the last."""
    last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.global_step == trainer.max_steps or (trainer.is_last_batch and last_epoch)
