"""`inbatch train`: from a command line to a training run."""

from __future__ import annotations

import sys
from functools import partial

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.cli.sweep_hooks import how_to_go_on, in_sweep, run_job
from inbatch.cluster.requeue import leave_early, preempted_exits
from inbatch.cluster.stop_request import StopRequest
from inbatch.config.check import check_config
from inbatch.config.schema import CONF
from inbatch.console import record
from inbatch.run.quiet import quiet
from inbatch.run.train import train
from inbatch.strategies import is_first_process

CONF_DIR = str(CONF)


def main(typed: str | None = None) -> None:
    """Train as the command line says; `typed` as in `inbatch.cli.main.run`."""
    launch(_main, config_name="train", typed=typed)


def _main(cfg: DictConfig) -> float | None:
    with_output_dir = OmegaConf.merge(cfg, {"output_dir": HydraConfig.get().runtime.output_dir})
    assert isinstance(with_output_dir, DictConfig)
    first = is_first_process()
    go_on = how_to_go_on()
    leave = partial(leave_early, first=first, go_on=go_on)
    with quiet(), StopRequest(leave, say=_say if first else _say_nothing, go_on=go_on) as stop:
        if in_sweep():
            return run_job(with_output_dir, train, stop)
        with user_errors(with_output_dir), preempted_exits(go_on):
            train(check_config(with_output_dir), stop)
    return None


def _say(line: str) -> None:
    record(line)
    start = "\n" if sys.stderr.isatty() else ""  # after the ^C of the terminal
    print(f"{start}{line}", file=sys.stderr, flush=True)


def _say_nothing(line: str) -> None:
    """Rank 0 speaks for all."""
