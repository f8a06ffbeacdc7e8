"""The entry point: configuration -> data, encoder, loss -> trainer -> model directory.

`train` reads as the table of contents of a run. Everything that can be wrong with a configuration or
a file is found before `fit`; a user's mistake ends in one sentence and exit code 2.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import datasets
import hydra
import transformers
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf

from inbatch import assemble as parts_of
from inbatch.config import RunConfig, check_config, rows_per_rank
from inbatch.data.sources import load_sources
from inbatch.finish import finish
from inbatch.hydra_app import instantiate, launch, user_errors
from inbatch.strategies import find_world

CONF = Path(__file__).parent / "conf"
CONF_DIR = str(CONF if CONF.is_dir() else Path(__file__).parents[2] / "conf")


def train(run: RunConfig) -> Path:
    """Run a checked configuration; returns the output directory."""
    output_dir = Path(run.output_dir)
    world = find_world(run.trainer.accelerator, run.trainer.devices, run.trainer.num_nodes)
    rows_per_rank(run.global_batch_size, world.size)
    seed_everything(run.seed, workers=True, verbose=False)
    parts_of.prepare_output(run, output_dir)

    sources = load_sources(run.data.train, cache_dir=run.data.cache_dir)
    evaluators = instantiate(run.evaluation.evaluators)
    encoder = parts_of.make_encoder(run, sources)
    losses = parts_of.make_losses(run, sources, guided=run.guide.encoder is not None)
    guide = parts_of.make_guide(run, sources, losses)

    scaling = instantiate(run.strategy).resolve(world.size)
    data = parts_of.make_data(run, sources, encoder, guide)
    module = parts_of.make_module(run, encoder, losses, guide, scaling)
    rows = parts_of.run_rows(run, world, sources, encoder, losses)
    parts = parts_of.make_parts(run, evaluators, module, rows, output_dir)
    trainer = parts_of.make_trainer(run, world, scaling, parts)
    parts_of.write_report(run, sources, data, encoder, output_dir)

    start = time.monotonic()
    trainer.fit(
        module, datamodule=data, ckpt_path=parts_of.resume_path(run, output_dir), weights_only=True
    )
    seconds = time.monotonic() - start
    finish(run, trainer, module, sources, evaluators, parts, output_dir, training_time_s=seconds)
    return output_dir


def main() -> None:
    """Console command `inbatch-train`."""
    launch(_main, conf=CONF_DIR)


@hydra.main(version_base="1.3", config_path=CONF_DIR, config_name="train")
def _main(cfg: DictConfig) -> float | None:
    quiet()
    with user_errors():
        with_output_dir = OmegaConf.merge(cfg, {"output_dir": HydraConfig.get().runtime.output_dir})
        assert isinstance(with_output_dir, DictConfig)
        train(check_config(with_output_dir))
    return None


def quiet() -> None:
    """One progress line is enough: no bars of libraries, no tips of Lightning."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
