"""The Lightning trainer of a run and its loggers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from inbatch import compat
from inbatch.callbacks.metrics_file import MetricsFile
from inbatch.callbacks.run_id import with_run_id
from inbatch.callbacks.wandb_run import named, open_run
from inbatch.config.check import PRECISIONS, RunConfig
from inbatch.config.instantiate import instantiate
from inbatch.folder.paths import RunFolder
from inbatch.run.callbacks import RunCallbacks
from inbatch.strategies import Strategy, World, cluster_environment, is_first_process
from inbatch.strategies.failed_rank import watch_ranks


def make_trainer(
    run: RunConfig,
    folder: RunFolder,
    world: World,
    *,
    strategy: Strategy,
    callbacks: RunCallbacks,
    fresh: bool,
) -> Trainer:
    """The Lightning trainer; it brings no sampler, bar, checkpoint or signal handler of its own."""
    loggers = make_loggers(run.logger, folder, run_name=run.name, fresh=fresh)
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
        logger=[MetricsFile(folder.metrics, csv_path=folder.metrics_csv), *loggers],
        callbacks=callbacks.all,
        deterministic=run.deterministic,
        log_every_n_steps=1,  # Lightning warns of epochs shorter than this; StepLog has its own grid
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    compat.observe_ranks(watch_ranks)
    if callbacks.preemption is not None:
        callbacks.preemption.take_signals(trainer)
    return trainer


def make_loggers(
    nodes: Mapping[str, Any], folder: RunFolder, *, run_name: str, fresh: bool
) -> list[Logger]:
    """The configured loggers; to them, a run that resumes is the same run."""
    made: list[Logger] = []
    for name, node in nodes.items():
        full = named(node, run_name=run_name, output_dir=folder.path)
        made.append(instantiate(with_run_id(full, folder.wandb_id, fresh=fresh)))
        if is_first_process():  # the only one that logs
            open_run(made[-1], key=f"logger.{name}")
    return made
