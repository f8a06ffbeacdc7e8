"""What watches a run: callbacks, loggers, and the trainer that calls them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from inbatch.callbacks.checkpoints import LAST, Checkpoints
from inbatch.callbacks.evaluation import Evaluation
from inbatch.callbacks.examples import ExampleTables
from inbatch.callbacks.metrics_file import MetricsFile
from inbatch.callbacks.preemption import Preemption
from inbatch.callbacks.progress import Progress
from inbatch.callbacks.pruning import Pruning
from inbatch.callbacks.rank_consistency import RankConsistency
from inbatch.callbacks.run_id import with_run_id
from inbatch.callbacks.step_log import StepLog
from inbatch.callbacks.summary import Summary
from inbatch.callbacks.wandb_run import WandbRun, named
from inbatch.cluster.stop_request import StopRequest
from inbatch.config.check import PRECISIONS, RunConfig
from inbatch.config.instantiate import instantiate
from inbatch.errors import ConfigError
from inbatch.evaluation import Evaluator
from inbatch.export.model import export_model
from inbatch.guide.fingerprint import hash_tokenizer
from inbatch.run.datamodule import BatchModule
from inbatch.run.memory_plan import MemoryPlan
from inbatch.run.module import BiEncoderModule
from inbatch.run.saved_checkpoint import read_checkpoint
from inbatch.strategies import Strategy, World, cluster_environment
from inbatch.sweep.pruning import check_is_trial

CHECKPOINT = "checkpoint to go on from"
# Parts of a configuration that name places, or are compared as what they lead to.
OF_A_NODE = (
    "data",
    "data_dir",
    "output_dir",
    "encoder",
    "guide",
    "evaluation",
    "logger",
    "gradcache",
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What watches a run."""

    evaluation: Evaluation | None
    checkpoints: Checkpoints
    metrics: MetricsFile
    summary: Summary
    wandb: WandbRun
    pruning: Pruning | None
    preemption: Preemption | None
    callbacks: list[Callback]


def make_parts(
    run: RunConfig,
    evaluators: Mapping[str, Evaluator],
    module: BiEncoderModule,
    data: BatchModule,
    rows: Mapping[str, Mapping[str, str]],
    plan: MemoryPlan,
    output_dir: Path,
    stop: StopRequest | None,
) -> Parts:
    """Callbacks, in the order in which they run after a step: evaluate, log, save, stop if asked to."""
    evaluation = None
    if evaluators:
        evaluation = Evaluation(
            list(evaluators.values()),
            every_steps=run.evaluation.every_steps,
            at_start=run.evaluation.at_start,
            every_epoch=run.evaluation.every_epoch,
            best_metric=run.evaluation.best_metric,
            mode=run.evaluation.mode,  # type: ignore[arg-type]
            on_best=lambda trainer: export_model(trainer, module, output_dir / "model"),
        )
    checkpoints = Checkpoints(
        output_dir / "checkpoints",
        every_steps=run.checkpoint.every_n_steps,
        keep=run.checkpoint.keep,
    )
    summary = Summary(rows, step_flop=plan.flop)
    wandb = WandbRun(
        asdict(run),
        metric=None if evaluation is None else evaluation.best_metric,
        mode=run.evaluation.mode,  # type: ignore[arg-type]
    )
    facts = shared_facts(run, module, data, output_dir)
    watching: list[Callback] = [RankConsistency(facts, remedies={CHECKPOINT: seen_by_all(run)})]
    watching += [wandb, summary, StepLog(every_steps=run.trainer.log_every_steps)]
    watching.append(Progress(every_steps=run.trainer.log_every_steps))
    if evaluation is not None:
        watching.append(evaluation)
        watching.append(ExampleTables(list(evaluators.values()), folder=output_dir / "examples"))
    pruning = make_pruning(run, evaluation, output_dir)
    if pruning is not None:
        watching.append(pruning)
    watching.append(checkpoints)
    preemption = None
    if stop is not None:
        preemption = Preemption(stop, checkpoints, directory=output_dir / "checkpoints")
        watching.append(preemption)
    return Parts(
        evaluation,
        checkpoints,
        MetricsFile(output_dir),
        summary,
        wandb,
        pruning,
        preemption,
        watching,
    )


def shared_facts(
    run: RunConfig, module: BiEncoderModule, data: BatchModule, output_dir: Path
) -> dict[str, Callable[[], Any]]:
    """What must be the same on all ranks. Folders and files may be others, if their content is not."""
    alike = {key: value for key, value in asdict(run).items() if key not in OF_A_NODE}
    return {
        "configuration": lambda: alike,
        "plan of batches": lambda: data.fingerprint,
        "tokenizer": lambda: hash_tokenizer(module.encoder.tokenizer),
        CHECKPOINT: lambda: checkpoint_fact(run, output_dir),
    }


def make_pruning(run: RunConfig, evaluation: Evaluation | None, folder: Path) -> Pruning | None:
    """What stops a trial of a sweep early, if that is asked for."""
    if evaluation is None or not run.pruner:
        return None
    check_is_trial(folder)
    return Pruning(instantiate(run.pruner), evaluation, folder=folder, mode=run.evaluation.mode)  # type: ignore[arg-type]


def make_trainer(run: RunConfig, world: World, strategy: Strategy, parts: Parts) -> Trainer:
    """The Lightning trainer; it brings no sampler, bar, checkpoint or signal handler of its own."""
    trainer = Trainer(
        accelerator=world.accelerator,
        devices=world.devices,
        num_nodes=world.num_nodes,
        strategy=strategy.lightning_strategy(
            accelerator=world.accelerator,
            num_processes=world.devices,
            num_nodes=world.num_nodes,
            clip_norm=run.clip_norm,
        ),
        precision=PRECISIONS[run.precision],  # type: ignore[arg-type]
        max_epochs=run.trainer.max_epochs,
        max_steps=run.trainer.max_steps,
        plugins=[cluster_environment()],
        logger=[parts.metrics, *make_loggers(run)],
        callbacks=parts.callbacks,
        deterministic=run.deterministic,
        log_every_n_steps=1,  # Lightning warns of epochs shorter than this; StepLog has its own grid
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    if parts.preemption is not None:
        parts.preemption.take_signals(trainer)
    return trainer


def make_loggers(run: RunConfig) -> list[Logger]:
    """The configured loggers; a run that goes on is the same run to them."""
    output_dir = Path(run.output_dir)
    fresh = resume_path(run, output_dir) is None
    nodes = [named(n, run_name=run.name, output_dir=output_dir) for n in run.logger.values()]
    return [instantiate(with_run_id(node, output_dir, fresh=fresh)) for node in nodes]


def resume_path(run: RunConfig, output_dir: Path) -> Path | None:
    """The checkpoint to go on from: the run's own for "auto", none for "never", else the named one.

    Raises:
        ConfigError: there is none.
    """
    if run.resume == "never":
        return None
    last = output_dir / "checkpoints" / LAST
    if run.resume == "auto" and not last.exists():
        return None
    path = last if run.resume == "auto" else Path(run.resume)
    if not path.exists():
        raise ConfigError(f"resume={run.resume!r} does not exist: set auto, never, or a checkpoint")
    return path


def checkpoint_fact(run: RunConfig, output_dir: Path) -> Any:
    """What a run goes on from, by its content; None where it begins."""
    path = resume_path(run, output_dir)
    if path is None:
        return None
    if path.is_file():  # its index has a checksum of each tensor
        with zipfile.ZipFile(path) as file:
            return sorted(entry.CRC for entry in file.infolist())
    saved = read_checkpoint(path, resume=run.resume)  # without the weights
    return "shards" if saved is None else [saved["global_step"], saved["epoch"]]


def seen_by_all(run: RunConfig) -> str:
    """What to do where ranks go on from different checkpoints, or only some find one."""
    if run.resume not in ("auto", "never"):
        return f"resume={run.resume!r} must be a checkpoint that all nodes see"
    return f"output_dir={run.output_dir!r} must be one folder that all nodes see"


def check_resume(run: RunConfig, output_dir: Path, data: BatchModule) -> None:
    """Whether the checkpoint that a run goes on from is of this plan; before anything is written.

    Raises:
        ConfigError: it is of another plan, or no checkpoint.
    """
    path = resume_path(run, output_dir)
    checkpoint = None if path is None else read_checkpoint(path, resume=run.resume)
    if checkpoint is not None:
        data.check_checkpoint(checkpoint)
