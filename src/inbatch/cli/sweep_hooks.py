"""How `inbatch train --multirun` uses Hydra: a trial from each job, and the report at the end."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from inbatch.cli.hydra_app import user_errors
from inbatch.cli.overrides import as_text
from inbatch.cluster.requeue import EXIT_PREEMPTED, preempted_exits
from inbatch.cluster.stop_request import (
    CTRL_C,
    EXIT_INTERRUPTED,
    GO_ON,
    StopRequest,
    signal_name,
)
from inbatch.config.check import RunConfig, check_config
from inbatch.errors import ConfigError
from inbatch.strategies import find_world
from inbatch.sweep.folders import trial_folder
from inbatch.sweep.report import report
from inbatch.sweep.run import run_apart, run_trial
from inbatch.sweep.trials import Trial, read_trial

EXIT_SOME_FAILED = 1

# `hydra.sweep.subdir` in conf/train.yaml; launchers resolve it in the process of the trial.
OmegaConf.register_new_resolver(
    "trial_folder",
    lambda sweep, number, overrides: trial_folder(Path(sweep), number, list(overrides)),
    replace=True,
)


class SweepReport(Callback):
    """Checks a sweep before its first trial, and reports on it after the last."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse what every trial would fail with. Hydra swallows errors here, but lets an exit pass."""
        with user_errors():
            check_sweep(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write table, plots and link; exit with code 1 if a trial has failed."""
        if is_array(
            config.hydra
        ):  # one of several processes, none of which knows whether it is the last
            return
        with user_errors():
            trials = report(Path(config.hydra.sweep.dir))
        if not all(trial.succeeded for trial in trials.values()):
            sys.exit(EXIT_SOME_FAILED)


def check_sweep(config: DictConfig) -> None:
    """Refuse a sweep that cannot start.

    Raises:
        ConfigError: several processes would each run all of it, a folder has no effect, or a plugin is
            not installed.
    """
    if launched() and not is_array(config.hydra):
        raise ConfigError(
            "--multirun",
            "under torchrun or srun would run the whole sweep on each rank",
            "start it once with trainer.devices=..., and each trial starts its own ranks",
        )
    for override in config.hydra.overrides.task:
        if override.lstrip("+").startswith("output_dir="):
            raise ConfigError(override, "has no effect on a sweep", "set hydra.sweep.dir=...")
    for group in ("launcher", "sweeper"):
        target = str(config.hydra[group]._target_)
        if importlib.util.find_spec(target.split(".")[0]) is None or not _found(target):
            choice = config.hydra.runtime.choices[f"hydra/{group}"]
            problem = "needs a plugin that is not installed"
            raise ConfigError(f"hydra/{group}={choice}", problem, "pip install 'inbatch[sweep]'")


def is_array(hydra: HydraConf) -> bool:
    """Return whether this process is a task of a job array and runs one trial of a sweep."""
    return bool(hydra.runtime.choices["hydra/launcher"] == "array")


def in_sweep() -> bool:
    """Return whether this job is a trial of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def launched() -> bool:
    """Return whether torchrun or srun has started this process as one of several."""
    return find_world("cpu", "auto", 1).size > 1


def how_to_go_on() -> str:
    """How to go on after a stop, in words; the folder of a sweep has the time of its start in its name."""
    job: HydraConf = HydraConfig.get()
    output = Path(job.runtime.output_dir)
    sweep = job.sweep.dir if in_sweep() else output.parent if read_trial(output) else None
    return (
        GO_ON
        if sweep is None
        else f"the same command with hydra.sweep.dir={sweep} goes on from there"
    )


def run_job(
    config: DictConfig, train: Callable[[RunConfig, StopRequest], object], stop: StopRequest
) -> float | None:
    """Run the trial of this job; return its metric, None where it has none or has failed.

    A request to stop that comes too late for the trial ends the sweep after it.
    """
    go_on = how_to_go_on()

    def work() -> None:
        run = check_config(config)
        world = find_world(run.trainer.accelerator, run.trainer.devices, run.trainer.num_nodes)
        with preempted_exits(go_on):  # ends the sweep: its other trials are not to be trained now
            if world.size > 1 and not launched():
                run_apart(command_of_job(), stop)
            else:
                train(run, stop)

    trial = trial_of_job()
    folder = Path(HydraConfig.get().runtime.output_dir)
    metric = run_trial(trial, folder, work, one_of_several=launched())
    if stop.number and not is_array(HydraConfig.get()):
        name = signal_name(stop.number)
        print(f"stopped by {name} after trial {trial.number}; {go_on}", file=sys.stderr, flush=True)
        sys.exit(EXIT_INTERRUPTED if name == CTRL_C else EXIT_PREEMPTED)
    return metric


def trial_of_job() -> Trial:
    """Return the trial of this job; its number is that of its folder, where that has one."""
    job: HydraConf = HydraConfig.get()
    name = Path(str(job.runtime.output_dir)).name
    number = int(name) if name.isdecimal() else int(job.job.num)
    return Trial(number=number, overrides=tuple(job.overrides.task))


def command_of_job() -> list[str]:
    """Return a command line that runs this job alone."""
    job: HydraConf = HydraConfig.get()
    command = [sys.executable, "-m", "inbatch", "train", f"--config-name={job.job.config_name}"]
    for source in job.runtime.config_sources:
        if source.provider == "command-line":
            command.append(f"--config-dir={source.path}")
    return [*command, *job.overrides.task, f"hydra.run.dir={as_text(job.runtime.output_dir)}"]


def _found(target: str) -> bool:
    try:
        return importlib.util.find_spec(target.rpartition(".")[0]) is not None
    except ModuleNotFoundError:
        return False
