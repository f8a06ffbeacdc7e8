"""One training run: configuration -> data, encoder, loss -> trainer -> model directory.

`train` is the table of contents of a run. Everything that can be wrong with a configuration or a file is
found before `fit`; a user's mistake raises `ConfigError`.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything

from inbatch.callbacks.preemption import Preemption
from inbatch.callbacks.summary import Summary
from inbatch.cluster.stop_request import Stop
from inbatch.config.check import RunConfig
from inbatch.device.allocator import grow_gpu_segments, keep_freed_memory
from inbatch.device.matmul_precision import allow_tf32
from inbatch.folder.identity import claim, run_name, write_config
from inbatch.folder.paths import RunFolder
from inbatch.run.auto_sizes import plan_memory, with_sizes
from inbatch.run.batch_checks import check_world
from inbatch.run.build import build_parts, make_data, make_module
from inbatch.run.callbacks import make_callbacks
from inbatch.run.datamodule import BatchModule
from inbatch.run.diverged import diverged
from inbatch.run.module import BiEncoderModule
from inbatch.run.overview import overview, write_report
from inbatch.run.parts import OwnObjects
from inbatch.run.precision import choose_precision
from inbatch.run.results import Fitted, TrainResult, write_results
from inbatch.run.resume import Saved, check_strategy_of, find_checkpoint, saved_tokens
from inbatch.run.trainer import make_trainer
from inbatch.step.finite import NonFiniteGradient
from inbatch.strategies import World, find_world
from inbatch.strategies.launcher import meeting_ranks


def train(
    run: RunConfig, stop: Stop | None = None, *, own: OwnObjects | None = None
) -> TrainResult:
    """Run a checked configuration.

    Args:
        run: what to run.
        stop: where signals are noted, once training has begun; None leaves the process's signals alone.
        own: objects that stand in for parts of the configuration.

    Raises:
        ConfigError: a user's mistake, found before training.
        Preempted: `stop` was asked for, and a checkpoint is written.
    """
    folder = RunFolder(Path(run.output_dir))
    run = replace(run, name=run_name(run.name, folder))
    world = find_world(run.trainer.accelerator, run.trainer.devices, run.trainer.num_nodes)
    with claim(folder, asdict(run)) as held:
        saved = find_checkpoint(folder, run.resume, asdict(run))
        check_world(world, run.global_batch_size, run.sampler.get("batch_sizes"), run.precision)
        set_up_process(world, precision=run.precision, seed=run.seed)
        precision = choose_precision(run.precision, world, strategy=run.strategy, saved=saved)
        run = replace(run, precision=precision.name)
        parts = build_parts(run, world, own or OwnObjects())
        check_strategy_of(saved, parts.strategy, run.strategy, world)
        plan = plan_memory(run, world, parts, saved_tokens=saved_tokens(saved, world))
        run = replace(run, gradcache=with_sizes(run.gradcache, plan))
        data, module = make_data(run, world, parts, saved), make_module(run, parts)

        write_config(folder, asdict(run))
        write_report(parts, data, folder.data_report)
        summary = Summary(overview(run, world, parts, plan, precision), step_flop=plan.flop)
        callbacks = make_callbacks(
            run, folder, parts, module, data, saved=saved, held=held, summary=summary, stop=stop
        )
        trainer = make_trainer(
            run, folder, world, strategy=parts.strategy, callbacks=callbacks, fresh=saved is None
        )
        seconds = fit(trainer, module, data, folder, saved=saved, preemption=callbacks.preemption)
        return write_results(run, folder, parts, Fitted(trainer, module, callbacks, seconds))


def fit(
    trainer: Trainer,
    module: BiEncoderModule,
    data: BatchModule,
    folder: RunFolder,
    *,
    saved: Saved | None,
    preemption: Preemption | None,
) -> float:
    """Train from a checkpoint, or from the start; return the seconds that it has taken.

    Raises:
        ConfigError: the ranks cannot meet, or gradients are not finite.
        Preempted: a stop was asked for, and a checkpoint is written.
    """
    start = time.monotonic()
    path = None if saved is None else saved.path
    try:
        with meeting_ranks():
            trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    except NonFiniteGradient as error:
        raise diverged(error, folder, data) from error
    seconds = time.monotonic() - start
    if preemption is not None:
        preemption.finish(trainer)
    return seconds


def set_up_process(world: World, *, precision: str, seed: int) -> None:
    """Set the memory allocator, the precision of matrix products and the seeds of this process."""
    if world.accelerator == "cpu":
        keep_freed_memory()
    else:
        grow_gpu_segments()
    if precision == "tf32":
        allow_tf32()
    seed_everything(seed, workers=True, verbose=False)
