"""`inbatch embed-guide`: the configuration of a run -> the guide embeddings that it will need.

Training fills the guide's store by itself. This command does it ahead of time, on other machines or with
another launcher. Stored embeddings are not computed again, so it may be stopped and started at any time.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path

from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from omegaconf import DictConfig

from inbatch import compat
from inbatch.cli.hydra_app import launch, user_errors
from inbatch.config.check import RunConfig, check_config
from inbatch.console import make_console, print_plain
from inbatch.data.sources.load import load_sources
from inbatch.errors import ConfigError
from inbatch.gather import largest
from inbatch.guide import Process, StoredGuide
from inbatch.run import build as parts_of
from inbatch.run.quiet import quiet
from inbatch.strategies import cluster_environment, find_world
from inbatch.strategies.failed_rank import watch_ranks


def embed_guide(run: RunConfig) -> Path:
    """Embed the texts of a checked configuration; return the store's folder.

    Raises:
        ConfigError: the run does not use a store.
    """
    world = find_world(run.trainer.accelerator, run.trainer.devices, run.trainer.num_nodes)
    parts_of.generate_data(run.data)
    sources = load_sources(run.data.train, cache_dir=run.data.cache_dir)
    mixed, guided = bool(run.sampler.get("mixed")), run.guide.model is not None
    sources, losses = parts_of.make_losses(run.loss, sources, guided=guided, mixed=mixed)
    guide = parts_of.make_guide(run.guide, sources, losses, accelerator=world.accelerator)
    if guide is None:
        raise ConfigError("loss", "does not use a guide", "set loss=gist, which does")
    if not isinstance(guide, StoredGuide):
        raise ConfigError(
            "guide.mode", "does not use a store", "set guide.mode=stored", value=run.guide.mode
        )

    compat.observe_ranks(watch_ranks)
    fabric = Fabric(
        accelerator=world.accelerator,
        devices=world.devices,
        num_nodes=world.num_nodes,
        # A rank that is done waits for the others, however long they take.
        strategy=DDPStrategy(timeout=timedelta(days=7)) if world.size > 1 else "auto",
        plugins=[cluster_environment()],
    )
    fabric.launch()
    console = make_console()
    guide.start(
        Process(
            device=fabric.device,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            barrier=fabric.barrier,
            most=partial(largest, device=fabric.device),
            say=lambda line: print_plain(line, console=console) if fabric.is_global_zero else None,
        )
    )
    return guide.store_dir


def main(typed: str | None = None) -> None:
    """Embed as the command line of the training run says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="train", typed=typed)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        embed_guide(check_config(cfg))
