"""`inbatch embed-guide`: the configuration of a run -> the guide embeddings that it will need.

Training fills the guide's store by itself. This command does it ahead of time, on other machines or with
another launcher. Stored embeddings are not computed again, so it may be stopped and started at any time.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.config.check import RunConfig, check_config
from inbatch.data.sources.load import load_sources
from inbatch.errors import ConfigError
from inbatch.guide import StoredGuide
from inbatch.run import build as parts_of
from inbatch.run.processes import start_ranks
from inbatch.run.quiet import quiet
from inbatch.strategies import find_world


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
        raise ConfigError(
            "loss", "does not use a guide", "set loss=gist or loss=in_batch_kl, which do"
        )
    if not isinstance(guide, StoredGuide):
        raise ConfigError(
            "guide.mode", "does not use a store", "set guide.mode=stored", value=run.guide.mode
        )

    guide.start(start_ranks(world))
    return guide.store_dir


def main(typed: str | None = None) -> None:
    """Embed as the command line of the training run says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="train", typed=typed)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        embed_guide(check_config(cfg))
