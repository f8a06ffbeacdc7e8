"""`inbatch mine`: a saved model and training rows -> the rows with hard negatives, and a report.

What is embedded and mined stays: the same command goes on where one was stopped or killed, on any number of
ranks.
"""

from __future__ import annotations

from omegaconf import DictConfig

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.config.check_mine import check_mine
from inbatch.run.mine import mine
from inbatch.run.quiet import quiet


def main(typed: str | None = None) -> None:
    """Mine as the command line says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="mine", typed=typed)


def _main(cfg: DictConfig) -> None:
    with quiet(), user_errors(cfg):
        mine(check_mine(cfg))
