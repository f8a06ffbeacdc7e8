"""The entry point: configuration -> data, encoder, loss -> trainer -> model directory.

`train` reads as the table of contents of a run. Everything that can be wrong with a configuration or
a file is found before `fit`; a user's mistake ends in one sentence and exit code 1.
"""

from __future__ import annotations

import logging
import time
import warnings
from functools import partial
from pathlib import Path

import datasets
import hydra
import transformers
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf

from inbatch import assemble as parts_of
from inbatch import watch
from inbatch.allocation import grow_gpu_segments, keep_freed_memory
from inbatch.callbacks.preemption import StopRequest
from inbatch.checks import (
    check_batch,
    check_dims,
    check_gather,
    check_kernels,
    check_scaling,
    check_sizes,
)
from inbatch.claim import check_free
from inbatch.config import RunConfig, check_config, check_precision
from inbatch.data.sources import load_sources
from inbatch.finish import finish
from inbatch.hydra_app import instantiate, launch, user_errors
from inbatch.products import allow_tf32
from inbatch.requeue import leave_early, preempted_exits
from inbatch.schema import CONF
from inbatch.sizing import batch_sizes, plan_run
from inbatch.strategies import find_world, is_first_process
from inbatch.sweep_app import in_sweep, run_job

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

    scaling = instantiate(run.strategy).resolve(world.size)
    check_scaling(scaling, run.precision)
    run, plan = plan_run(run, world, sources, encoder, losses, guide, scaling)
    data = parts_of.make_data(run, world, sources, encoder, guide)
    module = parts_of.make_module(run, encoder, losses, guide, scaling)
    rows = parts_of.run_rows(run, world, sources, encoder, losses, plan)
    watch.check_resume(run, output_dir, data)
    parts_of.prepare_output(run, output_dir)
    parts = watch.make_parts(run, evaluators, module, data, rows, plan, output_dir, stop)
    trainer = watch.make_trainer(run, world, scaling, parts)
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


def main() -> None:
    """Console command `inbatch-train`."""
    launch(_main, conf=CONF_DIR)


@hydra.main(version_base="1.3", config_path=CONF_DIR, config_name="train")
def _main(cfg: DictConfig) -> float | None:
    quiet()
    with_output_dir = OmegaConf.merge(cfg, {"output_dir": HydraConfig.get().runtime.output_dir})
    assert isinstance(with_output_dir, DictConfig)
    with StopRequest(partial(leave_early, first=is_first_process())) as stop:
        if in_sweep():
            return run_job(with_output_dir, partial(train, stop=stop))
        with user_errors(), preempted_exits():
            train(check_config(with_output_dir), stop)
    return None


def quiet() -> None:
    """One progress line is enough: no bars of libraries, no tips of Lightning."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric", "compilers"):  # the last is deepspeed's
        logging.getLogger(name).setLevel(logging.WARNING)
    # A filter, since deepspeed sets the level when accelerate imports it; it warns of every CPU.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    warnings.filterwarnings("ignore", ".*_tensor` is deprecated", FutureWarning)  # deepspeed's
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # Lightning's, on each rank
    warnings.filterwarnings("ignore", "The `srun` command is available")  # find_launcher knows
