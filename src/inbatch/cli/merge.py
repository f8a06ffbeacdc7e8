"""`inbatch merge`: models, checkpoints, runs or a sweep -> one model with a card, and `merge.json`."""

from __future__ import annotations

from omegaconf import DictConfig

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.config.check_merge import check_merge
from inbatch.run.merge import merge_models
from inbatch.run.quiet import quiet


def main(typed: str | None = None) -> None:
    """Merge as the command line says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="merge", typed=typed)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        merge_models(check_merge(cfg))
