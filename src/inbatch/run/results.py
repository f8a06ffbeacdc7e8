"""After training: the exported model, plots, model card, and the summary of the run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import Trainer

from inbatch.callbacks.cost import in_words_of_cost
from inbatch.callbacks.evaluation import Evaluation
from inbatch.config.check import RunConfig
from inbatch.encoder import Encoder, build_encoder
from inbatch.export.card_record import write_run_card
from inbatch.export.card_sections import in_words
from inbatch.export.metrics_log import read_metrics
from inbatch.export.model import export_model
from inbatch.folder.paths import RunFolder
from inbatch.run.callbacks import RunCallbacks
from inbatch.run.card import make_card
from inbatch.run.diverged import check_card
from inbatch.run.module import BiEncoderModule
from inbatch.run.parts import Parts
from inbatch.sweep.trials import Result, write_result


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The results of a training run.

    output_dir: holds everything that the run has written.
    model: the sentence-transformers directory.
    metrics: of the saved model, by name; empty without evaluation.
    metrics_before: of the untrained model; empty if it was not evaluated.
    best_step: optimizer step of the saved weights; None if no evaluation has chosen them.
    best_metric: the metric that chooses the model; None without evaluation.
    best_value: its value for the saved model.
    """

    output_dir: Path
    model: Path
    metrics: Mapping[str, float]
    metrics_before: Mapping[str, float]
    best_step: int | None = None
    best_metric: str | None = None
    best_value: float | None = None

    def load(self) -> Encoder:
        """The trained encoder, from its directory."""
        return build_encoder(str(self.model), trust_remote_code=True)  # the run has written it


@dataclass(frozen=True, slots=True)
class Fitted:
    """A training that has ended: its trainer, module and callbacks, and the seconds that it took."""

    trainer: Trainer
    module: BiEncoderModule
    callbacks: RunCallbacks
    seconds: float


def write_results(
    run: RunConfig,
    folder: RunFolder,
    parts: Parts,
    fitted: Fitted,
) -> TrainResult:
    """Export the model unless an evaluation has chosen one, write plots and card, print the summary.

    Called on every rank, since an export may be collective.

    Args:
        run, folder, parts: what has run, and where.
        fitted: what is left of the training.
    """
    trainer, callbacks = fitted.trainer, fitted.callbacks
    evaluation = callbacks.evaluation
    if evaluation is None or evaluation.best_step is None:  # else the best weights are exported
        average = callbacks.average
        with nullcontext() if average is None else average.in_place():
            export_model(trainer, fitted.module.encoder, fitted.module.strategy, folder)
    result = _train_result(folder, evaluation)
    if not trainer.is_global_zero:
        return result
    rows = read_metrics(folder.metrics)
    chosen_by = {}
    if result.best_step is not None and result.best_metric is not None:
        chosen_by = {result.best_metric: result.best_step}
    primary = {each.name: each.primary_metric for each in parts.evaluators.values()}
    from inbatch.export.plots import plot_run  # here, since matplotlib delays each start

    plots = plot_run(rows, folder.plots, best_steps=chosen_by, primary=primary)
    card = make_card(
        run, parts, trainer=trainer, callbacks=callbacks, rows=rows, model=folder.model
    )
    if evaluation is None or evaluation.best_step is None:
        check_card(card, folder, step=trainer.global_step)
    card_path = write_run_card(card, folder, plots=plots)
    _write_sweep_result(folder, callbacks, mode=run.evaluation.mode)
    best = {"best/value": result.best_value, "best/step": result.best_step}
    unsent = callbacks.wandb.finish(
        trainer, {} if result.best_value is None else best, model_dir=folder.model
    )
    paths = {
        "model": folder.model,
        "card": card_path,
        "metrics": folder.metrics,
        "plots": folder.plots,
        "checkpoint": folder.last_checkpoint,
        **unsent,
    }
    summary = callbacks.summary
    launch_s = fitted.seconds - summary.this_start_s
    facts = {
        "launch": f"{in_words(launch_s)} for ranks, strategy and guide",
        "cost": in_words_of_cost(callbacks.cost.cost),
    }
    if callbacks.log.loss is not None:
        facts["last loss"] = f"{callbacks.log.loss:.4f} (last row of {folder.metrics.name})"
    if result.best_value is not None:
        facts["best"] = f"{result.best_metric} {result.best_value:.4f} at step {result.best_step}"
    summary.show(
        trainer,
        before=result.metrics_before,
        after=result.metrics,
        facts=facts,
        paths={name: str(path) for name, path in paths.items()},
    )
    return result


def _train_result(folder: RunFolder, evaluation: Evaluation | None) -> TrainResult:
    if evaluation is None:
        return TrainResult(
            output_dir=folder.path, model=folder.model, metrics={}, metrics_before={}
        )
    return TrainResult(
        output_dir=folder.path,
        model=folder.model,
        metrics=dict(evaluation.best or evaluation.last),
        metrics_before=dict(evaluation.first),
        best_step=evaluation.best_step,
        best_metric=evaluation.best_metric,
        best_value=evaluation.best_value,
    )


def _write_sweep_result(folder: RunFolder, callbacks: RunCallbacks, *, mode: str) -> None:
    """Write `result.json`, which a sweep reads."""
    evaluation, pruning = callbacks.evaluation, callbacks.pruning
    result = Result()
    if evaluation is not None:
        result = Result(
            metric=evaluation.best_metric,
            mode="max" if mode == "max" else "min",
            value=evaluation.best_value,
            step=evaluation.best_step,
            pruned=pruning is not None and pruning.pruned_step is not None,
        )
    write_result(result, folder.path)
