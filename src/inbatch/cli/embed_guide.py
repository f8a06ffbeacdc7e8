"""The entry point that fills a guide's store: the configuration of a run -> the embeddings it will need.

Training fills the store by itself; this does it ahead, on other machines or under a launcher of its
own. What is stored already is not computed again, so it may be stopped and started at will.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

import hydra
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from omegaconf import DictConfig

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.cli.train import CONF_DIR, quiet
from inbatch.config.check import RunConfig, check_config
from inbatch.console import make_console, print_plain
from inbatch.data.sources.load import load_sources
from inbatch.errors import ConfigError
from inbatch.guide import Process, StoredGuide
from inbatch.run import build as parts_of
from inbatch.strategies import find_world


def embed_guide(run: RunConfig) -> Path:
    """Embed the texts of a checked configuration; returns the store's folder.

    Raises:
        ConfigError: the run looks nothing up in a store.
    """
    world = find_world(run.trainer.accelerator, run.trainer.devices, run.trainer.num_nodes)
    parts_of.write_demo_data(run.data, data_dir=run.data_dir)
    sources = load_sources(run.data.train, cache_dir=run.data.cache_dir)
    losses = parts_of.make_losses(run.loss, sources, guided=run.guide.model is not None)
    guide = parts_of.make_guide(run.guide, sources, losses, accelerator=world.accelerator)
    if guide is None:
        raise ConfigError("loss uses no guide: set loss=gist, or leave this out")
    if not isinstance(guide, StoredGuide):
        raise ConfigError(f"guide.mode={run.guide.mode} stores nothing: set guide.mode=stored")

    fabric = Fabric(
        accelerator=world.accelerator,
        devices=world.devices,
        num_nodes=world.num_nodes,
        # A rank that is done waits for the others, however long they take.
        strategy=DDPStrategy(timeout=timedelta(days=7)) if world.size > 1 else "auto",
    )
    fabric.launch()
    console = make_console()
    guide.start(
        Process(
            device=fabric.device,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            barrier=fabric.barrier,
            say=lambda line: print_plain(line, console=console) if fabric.is_global_zero else None,
        )
    )
    return guide.store_dir


def main() -> None:
    """`python scripts/embed_guide.py experiment=...`, with the overrides of the training run."""
    launch(_main, conf=CONF_DIR)


@hydra.main(version_base="1.3", config_path=CONF_DIR, config_name="train")
def _main(cfg: DictConfig) -> None:
    quiet()
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    with user_errors():
        embed_guide(check_config(cfg))
