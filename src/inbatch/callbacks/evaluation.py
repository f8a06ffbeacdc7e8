"""Evaluation during training, and the choice of the best model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from inbatch.callbacks.encode import ShardedEncode, place_of
from inbatch.callbacks.pauses import pause
from inbatch.errors import ConfigError, did_you_mean
from inbatch.evaluation import Evaluator
from inbatch.evaluation.base import NamesMetrics
from inbatch.evaluation.parts import check_names


class Evaluation(Callback):
    """Runs evaluators at the start, every N optimizer steps and after each epoch.

    Every rank computes every metric from the same embeddings. Their last bits may still differ with the
    GPU or the libraries of a node, so all ranks take the metrics and the decision of rank 0.

    Args:
        evaluators: by name.
        every_steps: optimizer steps between evaluations; None for none between epochs.
        at_start, every_epoch: whether to evaluate before the first step and after each epoch.
        best_metric: key that decides; None takes the first evaluator's primary metric.
        mode: whether larger ("max") or smaller ("min") is better.
        on_best: called on every rank when the metric has improved.
        weights: entered while a model is evaluated and exported, to have it compute with other weights.
        has_model: step -> whether the model of that step is at hand; called on rank 0 when a run resumes.
    """

    def __init__(
        self,
        evaluators: Sequence[Evaluator],
        *,
        every_steps: int | None = None,
        at_start: bool = True,
        every_epoch: bool = True,
        best_metric: str | None = None,
        mode: Literal["max", "min"] = "max",
        on_best: Callable[[Trainer], None],
        weights: Callable[[], AbstractContextManager[None]] = nullcontext,
        has_model: Callable[[int], bool] = lambda step: True,
    ) -> None:
        self._evaluators = list(evaluators)
        check_names(self._evaluators)
        self._every_steps = every_steps
        self._at_start = at_start
        self._every_epoch = every_epoch
        self._metric = best_metric or self._evaluators[0].primary_metric
        known = [e.metric_names() for e in evaluators if isinstance(e, NamesMetrics)]
        if len(known) == len(self._evaluators):  # otherwise the first evaluation checks it
            self._check_metric([name for names in known for name in names])
        self._sign = 1.0 if mode == "max" else -1.0
        self._on_best = on_best
        self._weights = weights
        self._has_model = has_model
        self._evaluated_step: int | None = None
        self.best_value: float | None = None
        self.best_step: int | None = None
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}

    @property
    def best_metric(self) -> str:
        """The key that decides which model is best."""
        return self._metric

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the untrained model. When a run resumes, look for the best one up to there instead."""
        if self.best_step is not None:
            found = trainer.is_global_zero and self._has_model(self.best_step)
            if not trainer.strategy.broadcast(found):  # resumed from a run elsewhere, which has it
                self.best_value, self.best_step, self.best = None, None, {}
        if self._at_start and trainer.global_step == 0:
            with self._weights():
                self.first = self._evaluate(trainer, pl_module, epoch=0.0, keep_best=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate on the step grid, after the last batch of an epoch and where `max_steps` ends the run."""
        step = trainer.global_step
        if step == self._evaluated_step or step == 0:
            return
        on_grid = bool(self._every_steps) and step % (self._every_steps or 1) == 0
        ends = trainer.is_last_batch or step == trainer.max_steps
        if on_grid or (self._every_epoch and ends):
            epoch = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
            with self._weights():
                self._evaluate(trainer, pl_module, epoch=epoch, keep_best=True)

    def _evaluate(
        self, trainer: Trainer, pl_module: LightningModule, *, epoch: float, keep_best: bool
    ) -> dict[str, float]:
        encode = ShardedEncode(place_of(trainer), pl_module.encoder)  # type: ignore[arg-type]
        metrics: dict[str, float] = {}
        with pause(trainer, "evaluate") as shown:
            for evaluator in self._evaluators:
                metrics.update(evaluator(encode))
            metrics = trainer.strategy.broadcast(metrics)
            self._check_metric(metrics)
            shown[self._metric] = metrics[self._metric]
        self.last, self._evaluated_step = metrics, trainer.global_step
        logged = {"epoch": epoch, **{f"eval/{key}": value for key, value in metrics.items()}}
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)
        # `on_best` is collective.
        if trainer.strategy.broadcast(keep_best and self._improved(metrics[self._metric])):
            self.best_value, self.best_step = metrics[self._metric], trainer.global_step
            self.best = metrics
            self._on_best(trainer)
        return metrics

    def _check_metric(self, metrics: Collection[str]) -> None:
        if self._metric not in metrics:
            raise ConfigError(
                "evaluation.best_metric",
                "is not a metric of the evaluators",
                did_you_mean(self._metric, metrics) or f"set one of {', '.join(metrics)}",
                value=self._metric,
            )

    def _improved(self, value: float) -> bool:
        if math.isnan(value):
            return False
        return self.best_value is None or self._sign * (value - self.best_value) > 0

    def state_dict(self) -> dict[str, Any]:
        """The choice so far, for a resumed run."""
        return {
            "best_value": self.best_value,
            "best_step": self.best_step,
            "evaluated_step": self._evaluated_step,
            "first": dict(self.first),
            "last": dict(self.last),
            "best": dict(self.best),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a saved choice."""
        self.best_value, self.best_step = state_dict["best_value"], state_dict["best_step"]
        self._evaluated_step = state_dict["evaluated_step"]
        self.first, self.last = state_dict["first"], state_dict["last"]
        self.best = state_dict["best"]
