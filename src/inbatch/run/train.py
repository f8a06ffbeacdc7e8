"""The entry point: configuration -> data, encoder, loss -> trainer -> model directory.

`train` reads as the table of contents of a run. Everything that can be wrong with a configuration or
a file is found before `fit`; a user's mistake ends in one sentence and exit code 1.
"""

from __future__ import annotations

import time
from pathlib import Path

from lightning.pytorch import seed_everything

from inbatch.cluster.stop_request import StopRequest
from inbatch.config.check import RunConfig, check_precision
from inbatch.config.instantiate import instantiate
from inbatch.config.schema import CONF
from inbatch.data.sources.load import load_sources
from inbatch.device.allocator import grow_gpu_segments, keep_freed_memory
from inbatch.device.matmul_precision import allow_tf32
from inbatch.run import build as parts_of
from inbatch.run import callbacks as watch
from inbatch.run.auto_sizes import batch_sizes, plan_run
from inbatch.run.compatibility import (
    check_batch,
    check_dims,
    check_gather,
    check_kernels,
    check_sizes,
    check_strategy,
)
from inbatch.run.folder import check_free
from inbatch.run.results import finish
from inbatch.strategies import find_world

CONF_DIR = str(CONF)


def train(run: RunConfig, stop: StopRequest | None = None) -> Path:
    """Run a checked configuration; returns the output directory.

    Args:
        run: what to run.
        stop: where signals are noted, once training has begun; None leaves the process's signals alone.

    Raises:
        Preempted: `stop` was asked for, and a checkpoint is written.
    """
    output_dir = Path(run.output_dir)
    world = find_world(run.trainer.accelerator, run.trainer.devices, run.trainer.num_nodes)
    check_free(run, output_dir)
    if world.accelerator == "cpu":
        keep_freed_memory()
    else:
        grow_gpu_segments()
    check_sizes(run, world)
    check_precision(run.precision, world.accelerator)
    if run.precision == "tf32":
        allow_tf32()
    seed_everything(run.seed, workers=True, verbose=False)
    parts_of.prepare_data(run)

    sources = load_sources(run.data.train, cache_dir=run.data.cache_dir)
    evaluators = instantiate(run.evaluation.evaluators)
    encoder = parts_of.make_encoder(run, sources)
    losses = parts_of.make_losses(run, sources, guided=run.guide.model is not None)
    check_dims(losses, encoder.output_dimension)
    check_kernels(losses, world, run.precision)
    check_gather(losses, run.gather)
    check_batch(sources, batch_sizes(run, sources), mixed=bool(run.sampler.get("mixed")))
    guide = parts_of.make_guide(run, world, sources, losses)

    strategy = instantiate(run.strategy).resolve(world.size)
    check_strategy(strategy, run.precision)
    run, plan = plan_run(run, world, sources, encoder, losses, guide, strategy)
    data = parts_of.make_data(run, world, sources, encoder, guide)
    module = parts_of.make_module(run, encoder, losses, guide, strategy)
    rows = parts_of.run_rows(run, world, sources, encoder, losses, plan)
    watch.check_resume(run, output_dir, data)
    parts_of.prepare_output(run, output_dir)
    parts = watch.make_parts(run, evaluators, module, data, rows, plan, output_dir, stop)
    trainer = watch.make_trainer(run, world, strategy, parts)
    parts_of.write_report(sources, data, encoder, losses, output_dir)

    start = time.monotonic()
    trainer.fit(
        module, datamodule=data, ckpt_path=watch.resume_path(run, output_dir), weights_only=True
    )
    seconds = time.monotonic() - start
    if parts.preemption is not None:
        parts.preemption.finish(trainer)
    finish(run, trainer, module, sources, evaluators, parts, output_dir, training_time_s=seconds)
    return output_dir
