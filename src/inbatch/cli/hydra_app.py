"""Hydra as the commands use it: their overrides in its grammar, and mistakes end in one line."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from inbatch.cli.keys import choices, group_keys
from inbatch.cli.overrides import complete_overrides
from inbatch.compat import hydra_options_with_value
from inbatch.config.check import omegaconf_error
from inbatch.config.composition import whole_choices
from inbatch.config.schema import CONF
from inbatch.console import record
from inbatch.errors import ConfigError, did_you_mean
from inbatch.strategies.failed_rank import is_told, kill_ranks, lost_rank
from inbatch.strategies.launcher import (
    OwnRanks,
    cluster_environment,
    is_first_process,
    rank_name,
)

#: What composing a configuration raises when the command line or a YAML file is wrong.
COMPOSITION_ERRORS = (
    ConfigCompositionException,
    OverrideParseException,
    InterpolationResolutionError,
    yaml.YAMLError,
)
_MULTIRUN = ("-m", "--multirun")
_INFO = ("-i", "--info")  # its value may be left out
_WAIT_S = 10.0  # of an error of another rank, for the one of rank 0


def launch(
    task: Callable[[DictConfig], Any],
    *,
    config_name: str,
    typed: str | None,
    settings: Sequence[str] = (),
) -> None:
    """Run a task on the configuration that the arguments of this process compose.

    A mistake in them, or in a YAML file, ends as in `user_errors`.

    Args:
        task: what `hydra.main` calls with the configuration.
        config_name: file of `conf/`.
        typed: the command of `inbatch` that stood before the arguments. It is in `sys.argv` while the task
            runs, since Lightning repeats the command line to start further ranks.
        settings: overrides of the command itself, in Hydra's grammar; those of the command line win.
    """

    @wraps(task)
    def with_command(config: DictConfig) -> Any:
        words = [typed] if typed else []
        sys.argv[1:1] = words
        try:
            return task(config)
        finally:
            del sys.argv[1 : 1 + len(words)]

    logging.raiseExceptions = (
        False  # a log on a full disk would print a trace for each of its lines
    )
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors; else it prints them itself
    with user_errors(), _recorded_warnings():
        overrides, options = split_options(sys.argv[1:])
        completed = complete_overrides(overrides, CONF, sweep=_is_sweep(options))
        sys.argv[1:] = [*settings, *completed, *options]
        try:
            main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
            with whole_choices():
                main(with_command)()
        except COMPOSITION_ERRORS as error:
            raise composition_error(error) from None
        except OSError as error:
            if _in_app(error):
                raise
            field = "hydra.sweep.dir" if _is_sweep(sys.argv) else "output_dir"
            raise ConfigError(
                field,
                f"cannot be created ({error.strerror})",
                "set a folder that can be written",
                value=error.filename,
            ) from None


@contextmanager
def _recorded_warnings() -> Iterator[None]:
    """Write Python's warnings to the log of the job too."""
    show = warnings.showwarning

    def both(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if is_first_process():
            record(f"{category.__name__}: {message}")
        show(message, category, *place, **more)

    warnings.showwarning = both
    try:
        yield
    finally:
        warnings.showwarning = show


def _is_sweep(arguments: Sequence[str]) -> bool:
    return not set(_MULTIRUN).isdisjoint(arguments)


def _in_app(error: Exception) -> bool:
    """Return whether an error was raised by the app itself, not by Hydra on the way to it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][1:]
    return any(str(frame.f_globals.get("__name__")).startswith("inbatch.") for frame in frames)


@contextmanager
def user_errors(config: DictConfig | None = None) -> Iterator[None]:
    """End the process on a `ConfigError` inside: one line on standard error, exit code 1.

    So it ends where another rank has failed, which says why. Every other error is written to the log of the
    job on its way. The ranks that this process has started end without a word.

    Args:
        config: composed configuration, so that the line names the chosen file of a group.
    """
    try:
        yield
    except ConfigError as error:
        kill_ranks()
        _say_error(_flat(error if config is None else with_choice(error, config)))
        sys.exit(1)
    except Exception as error:
        lost = lost_rank(error)
        if lost is not None:
            _say_lost(lost)
            sys.exit(1)
        kill_ranks()
        for line in traceback.format_exc().splitlines():
            record(line)
        raise


def with_choice(error: ConfigError, config: DictConfig) -> ConfigError:
    """Return an error that names a group's target with the chosen file, loss=gist, in its place.

    Of a key that other files of the group take, it names these.
    """
    group = error.key.partition(".")[0]
    choice = HydraConfig.get().runtime.choices.get(group) if HydraConfig.initialized() else None
    target = OmegaConf.select(config, f"{group}._target_") if choice else None
    if not target:
        return error
    problem, fix = error.problem.replace(target, f"{group}={choice}"), error.fix
    if problem == f"is not a valid key of {group}={choice}":
        keys = {name: {key.name for key in group_keys(group, name)} for name in choices(group)}
        others = [name for name in keys if error.key in keys[name]]
        fix = f"set {group}= one of {', '.join(others)}, or {fix}" if others else fix
    return ConfigError(error.key, problem, fix, value=error.value)


def split_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into overrides and Hydra's options with their values.

    Hydra's parser wants all overrides in one place.

    Args:
        arguments: without the program's name.
    """
    takes_value = hydra_options_with_value()
    overrides: list[str] = []
    options: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        options.append(argument)
        long = argument.startswith("--")  # may be cut short
        known = any(n.startswith(argument) if long else n == argument for n in takes_value)
        choice = argument in _INFO and rest and re.fullmatch(r"[a-z-]+", rest[0])
        if rest and (known or choice):
            options.append(rest.pop(0))
    return overrides, options


def composition_error(error: Exception) -> ConfigError:
    """Return an error of `COMPOSITION_ERRORS` as the user's mistake that it is."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = [option for option in error.options or () if option]
        fix = did_you_mean(name, options) or f"use one of {', '.join(options)}"
        if not group:
            return ConfigError(name, "is not a file of conf/", fix)
        return ConfigError(f"{group}={name}", "is not a file of that group", fix)
    if isinstance(error, OverrideParseException):
        if re.fullmatch(r"[^=+~-][^=]*", error.override):
            return ConfigError(repr(error.override), "is not key=value", _meant(error.override))
        reason = _flat(error).split("See http")[0].strip()
        return ConfigError(repr(error.override), f"cannot be read ({reason})", "correct its key")
    if isinstance(error, InterpolationResolutionError):
        return omegaconf_error(error)
    return ConfigError("configuration", f"cannot be composed ({_flat(error)})", "correct it")


def _meant(argument: str) -> str:
    """Return what an argument without a value was probably meant to be."""
    if Path(argument).is_file():
        return f"to name a file, set data.train={argument} or data.eval={argument}"
    if re.fullmatch(r"[A-Za-z_][\w.]*", argument) and not Path(argument).exists():
        return f"set {argument}=..., or encoder.model={argument} to name a model"
    return f"to name a model, set encoder.model={argument}"


def _say_error(message: str) -> None:
    """Print an error: rank 0 at once, another rank only if it still runs after a while.

    Most mistakes are made on all ranks, and the end of rank 0 ends the others.
    """
    line = f"error: {message}"
    if not is_first_process():
        parent, deadline = os.getppid(), time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            time.sleep(0.1)
            if os.getppid() != parent:  # rank 0, where Lightning has started the ranks
                return
        line = f"{rank_name()}: {line}"
    record(line)
    print(line, file=sys.stderr, flush=True)


def _say_lost(reason: str) -> None:
    """Print that another rank is gone, unless the process that has started the ranks does so first."""
    if (
        isinstance(cluster_environment(), OwnRanks) and is_told()
    ):  # in which the first may end this one
        return
    line = f"{rank_name()}: error: another rank is gone ({reason})"
    kill_ranks()
    record(line)
    print(line, file=sys.stderr, flush=True)


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())
