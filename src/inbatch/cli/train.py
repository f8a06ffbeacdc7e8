"""`inbatch train`: from a command line to a training run."""

from __future__ import annotations

from functools import partial

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from inbatch.cli.hydra_app import launch, user_errors
from inbatch.cli.sweep_hooks import in_sweep, run_job
from inbatch.cluster.requeue import leave_early, preempted_exits
from inbatch.cluster.stop_request import StopRequest
from inbatch.config.check import check_config
from inbatch.config.schema import CONF
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
    with quiet(), StopRequest(partial(leave_early, first=is_first_process())) as stop:
        if in_sweep():
            return run_job(with_output_dir, partial(train, stop=stop))
        with user_errors(with_output_dir), preempted_exits():
            train(check_config(with_output_dir), stop)
    return None
