"""`inbatch embed`: a saved model and texts -> embeddings, on any number of ranks and nodes.

What is embedded stays: the same command goes on where one was stopped or killed.
"""

from __future__ import annotations

from omegaconf import DictConfig

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.config.check_embed import check_embed
from inbatch.run.embed import embed
from inbatch.run.quiet import quiet


def main(typed: str | None = None) -> None:
    """Embed as the command line says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="embed", typed=typed)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        embed(check_embed(cfg))
