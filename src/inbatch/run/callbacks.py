"""The callbacks of a run, in the order in which they act after a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from inbatch.callbacks.checkpoints import Checkpoints
from inbatch.callbacks.cost import CostMeter
from inbatch.callbacks.ema import AveragedWeights
from inbatch.callbacks.evaluation import Evaluation
from inbatch.callbacks.examples import ExampleTables
from inbatch.callbacks.guide_fill import GuideFill
from inbatch.callbacks.nonfinite import NonFinite
from inbatch.callbacks.preemption import Preemption
from inbatch.callbacks.progress import Progress
from inbatch.callbacks.pruning import Pruning
from inbatch.callbacks.rank_consistency import RankConsistency
from inbatch.callbacks.run_record import RunRecord
from inbatch.callbacks.step_log import StepLog
from inbatch.callbacks.summary import Summary
from inbatch.callbacks.wandb_run import WandbRun
from inbatch.cluster.stop_request import Stop
from inbatch.config.check import RunConfig
from inbatch.config.instantiate import instantiate
from inbatch.config.schema import EvaluationConfig
from inbatch.evaluation import Evaluator
from inbatch.export.model import export_model
from inbatch.folder.model import forget_older_models, settle_model
from inbatch.folder.paths import RunFolder
from inbatch.guide import StoredGuide
from inbatch.guide.fingerprint import hash_tokenizer
from inbatch.run.datamodule import BatchModule
from inbatch.run.module import BiEncoderModule
from inbatch.run.parts import Parts
from inbatch.run.resume import CHECKPOINT, Saved, checkpoint_fact, remedy
from inbatch.sweep.pruning import check_is_trial

# Keys that name places, or whose effect is compared instead of their values.
_MAY_DIFFER_BY_NODE = (
    "data",
    "data_dir",
    "name",
    "output_dir",
    "encoder",
    "guide",
    "evaluation",
    "logger",
    "gradcache",
    "precision",
)
_SAME_PRECISION = (
    "set precision=fp32 (or bf16, which is slower where it is not native) for all nodes"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCallbacks:
    """The callbacks that a run asks for results, and `all` of them in their order."""

    average: AveragedWeights | None
    cost: CostMeter
    evaluation: Evaluation | None
    summary: Summary
    log: StepLog
    wandb: WandbRun
    pruning: Pruning | None
    preemption: Preemption | None
    all: list[Callback]


def make_callbacks(
    run: RunConfig,
    folder: RunFolder,
    parts: Parts,
    module: BiEncoderModule,
    data: BatchModule,
    *,
    saved: Saved | None,
    held: Callable[[], None],
    summary: Summary,
    stop: Stop | None,
) -> RunCallbacks:
    """Make the callbacks. After a step: log, evaluate, save, and stop if asked to.

    Args:
        run: what runs.
        folder: where it writes.
        parts: of the run; without evaluators, the last model is exported.
        module, data: what is trained, and on what.
        saved: the checkpoint that it resumes from.
        held: raises where the folder is no longer this run's.
        summary: prints what runs and what has run.
        stop: where signals are noted; None leaves signals alone.
    """
    evaluators = parts.evaluators
    average = None
    if run.ema.decay is not None:
        average = AveragedWeights(run.ema.decay, module.strategy, module.encoder)
    evaluation = _make_evaluation(run.evaluation, evaluators, module, folder, average)
    record = RunRecord(asdict(run), {} if saved is None else saved.record)
    checkpoints = Checkpoints(
        folder.checkpoints,
        every_steps=run.checkpoint.every_n_steps,
        keep=run.checkpoint.keep,
        record=record.make,
        before=held,
        after=partial(forget_older_models, folder),
    )
    wandb = WandbRun(
        asdict(run),
        metric=None if evaluation is None else evaluation.best_metric,
        mode=run.evaluation.mode,
    )
    pruning = _make_pruning(run.pruner, evaluation, folder.path, mode=run.evaluation.mode)
    preemption = None if stop is None else Preemption(stop, checkpoints)
    facts = shared_facts(asdict(run), saved, tokenizer=module.encoder.tokenizer, data=data)
    remedies = {CHECKPOINT: remedy(folder, run.resume), "precision": _SAME_PRECISION}
    cost = CostMeter(folder.cost)
    log = StepLog(every_steps=run.trainer.log_every_steps, more=cost.metrics)
    fill = (
        GuideFill(parts.guide, lambda: data.batches_done, accumulate=run.accumulate, stop=stop)
        if isinstance(parts.guide, StoredGuide)
        else None
    )
    examples = ExampleTables(list(evaluators.values()), folder=folder.examples)
    ordered: list[Callback | None] = [
        NonFinite(),
        RankConsistency(facts, remedies=remedies),
        wandb,
        summary,
        record,
        cost,
        log,
        Progress(log),
        average,
        evaluation,
        examples if evaluators else None,
        pruning,
        checkpoints,
        fill,
        preemption,
    ]
    return RunCallbacks(
        average=average,
        cost=cost,
        evaluation=evaluation,
        summary=summary,
        log=log,
        wandb=wandb,
        pruning=pruning,
        preemption=preemption,
        all=[callback for callback in ordered if callback is not None],
    )


def shared_facts(
    settings: Mapping[str, Any], saved: Saved | None, *, tokenizer: Any, data: BatchModule
) -> dict[str, Callable[[], Any]]:
    """Facts that must be equal on all ranks. Folders and files may be elsewhere if their content is equal."""
    alike = {key: value for key, value in settings.items() if key not in _MAY_DIFFER_BY_NODE}
    return {
        "precision": lambda: settings["precision"],
        "configuration": lambda: alike,
        "plan of batches": lambda: data.fingerprint,
        "tokenizer": lambda: hash_tokenizer(tokenizer),
        CHECKPOINT: lambda: checkpoint_fact(saved),
    }


def _make_evaluation(
    config: EvaluationConfig,
    evaluators: Mapping[str, Evaluator],
    module: BiEncoderModule,
    folder: RunFolder,
    average: AveragedWeights | None,
) -> Evaluation | None:
    if not evaluators:
        return None
    return Evaluation(
        list(evaluators.values()),
        every_steps=config.every_steps,
        at_start=config.at_start,
        every_epoch=config.every_epoch,
        best_metric=config.best_metric,
        mode=config.mode,
        on_best=lambda trainer: export_model(trainer, module.encoder, module.strategy, folder),
        weights=nullcontext if average is None else average.in_place,
        has_model=partial(settle_model, folder),
    )


def _make_pruning(
    pruner: Mapping[str, Any], evaluation: Evaluation | None, folder: Path, *, mode: str
) -> Pruning | None:
    """The callback that stops a sweep trial early; None unless that is asked for."""
    if evaluation is None or not pruner:
        return None
    check_is_trial(folder)
    return Pruning(instantiate(pruner), evaluation, folder=folder, mode=mode)  # type: ignore[arg-type]
