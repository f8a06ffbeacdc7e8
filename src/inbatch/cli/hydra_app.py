"""How entry points use Hydra: overrides that reach every key, and mistakes that end in one line.

Hydra refuses `key=value` for a key that the YAML files leave out, although the target may take it, and
says no more than that. So plain overrides are handed on as Hydra's own `++key=value`, and
`inbatch.config.check.check_config` says what is wrong with a key, with the nearest one that is right.
"""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
)
from lightning.pytorch.utilities import rank_zero_only
from omegaconf.errors import InterpolationResolutionError

from inbatch.config.check import check_local, omegaconf_error
from inbatch.console import record
from inbatch.errors import ConfigError, did_you_mean
from inbatch.strategies.launcher import is_first_process, rank_name

#: What composing a configuration raises when the command line or a YAML file is wrong.
COMPOSITION_ERRORS = (
    ConfigCompositionException,
    OverrideParseException,
    InterpolationResolutionError,
    yaml.YAMLError,
)
_SOURCE = re.compile(r"data\.train\.(\w+)=[^{]")
_MULTIRUN = ("-m", "--multirun")
_INFO = ("-i", "--info")  # its value may be left out
_WAIT_S = 10.0  # of an error of another rank, for the one of rank 0
_FOLDERS = ("output_dir", "guide.store_dir", "data.cache_dir")
_PLAIN = re.compile(r"(?P<group>[A-Za-z_][\w/]*)(?P<key>@?[\w.\-]*)=(?P<value>.*)", re.DOTALL)


def launch(app: Callable[[], None], *, conf: str) -> None:
    """Run a function that `hydra.main` has wrapped on the arguments of this process.

    A mistake in them, or in a YAML file, ends as in `user_errors`.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors; else it prints them itself
    with user_errors(), _recorded_warnings():
        overrides, options = split_options(sys.argv[1:])
        sys.argv[1:] = [*complete_overrides(overrides, Path(conf)), *options]
        try:
            app()
        except COMPOSITION_ERRORS as error:
            raise ConfigError(one_line(error)) from None
        except OSError as error:
            if _in_app(error):
                raise
            field = "hydra.sweep.dir" if set(_MULTIRUN) & set(sys.argv) else "output_dir"
            raise ConfigError(
                f"{field}={error.filename!r} cannot be made ({error.strerror}): set a folder that "
                "can be written"
            ) from None


@contextmanager
def _recorded_warnings() -> Iterator[None]:
    """Python's warnings go to the log of the job too."""
    show = warnings.showwarning

    def both(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if rank_zero_only.rank == 0:
            record(f"{category.__name__}: {message}")
        show(message, category, *place, **more)

    warnings.showwarning = both
    try:
        yield
    finally:
        warnings.showwarning = show


def _in_app(error: Exception) -> bool:
    """Whether an error comes out of the app itself, not of Hydra on the way to it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][1:]
    return any(str(frame.f_globals.get("__name__")).startswith("inbatch.") for frame in frames)


@contextmanager
def user_errors() -> Iterator[None]:
    """A `ConfigError` inside ends the process: one line on standard error, exit code 1.

    Every other error is written to the log of the job on its way.
    """
    try:
        yield
    except ConfigError as error:
        _say_error(with_choice(_flat(error)))
        sys.exit(1)
    except Exception:
        for line in traceback.format_exc().splitlines():
            record(line)
        raise


def with_choice(message: str) -> str:
    """A message about a key of a group's target, with the group's file in the target's place."""
    found = re.match(r"(\w+)\.\w+ is no key of ([\w.]+)", message)
    if found is None or not HydraConfig.initialized():
        return message
    choice = HydraConfig.get().runtime.choices.get(found[1])
    if choice is None or found[2] == found[1]:
        return message
    return f"{message[: found.start(2)]}{found[1]}={choice}{message[found.end(2) :]}"


def split_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides, and Hydra's options with their values, of a command line without the program's name.

    Hydra's parser wants all overrides in one place.
    """
    takes_value = [
        name
        for action in get_args_parser()._actions
        if action.nargs is None
        for name in action.option_strings
    ]
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


def complete_overrides(arguments: Sequence[str], conf: Path) -> list[str]:
    """The command line with `++` before each plain `key=value` that is not a choice of a file.

    Args:
        arguments: without the program's name.
        conf: folder whose subfolders are the groups.

    Raises:
        ConfigError: a group is given something else than the name of a file.
    """
    return [_complete(argument, conf) for argument in arguments]


def _complete(argument: str, conf: Path) -> str:
    match = _PLAIN.fullmatch(argument)
    if match is None or match["group"].split("/")[0] == "hydra":
        return argument
    group, key, value = match["group"], match["key"], match["value"]
    if f"{group}{key}" in _FOLDERS:  # before Hydra makes it
        check_local(f"{group}{key}", value)
    # So that a further key of this source does not take the file's place.
    if _SOURCE.match(argument):
        return f"++{group}{key}.path={value}"
    if not (conf / group).is_dir() or key.startswith("."):
        return f"++{argument}"
    if value == "null" or value.startswith("{"):
        files = ", ".join(sorted(path.stem for path in (conf / group).glob("*.yaml")))
        raise ConfigError(
            f"{argument} chooses no file: set {group}= one of {files}, and {group}.<key>= for its keys"
        )
    return argument


def one_line(error: Exception) -> str:
    """An error of `COMPOSITION_ERRORS` in one line."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = [option for option in error.options or () if option]
        close = did_you_mean(name, options) or f"choose one of {', '.join(options)}"
        return f"{group}={name} names no file: {close}" if group else f"{name} names no file"
    if isinstance(error, OverrideParseException):
        if re.fullmatch(r"[^=+~-][^=]*", error.override):
            return f"{error.override!r} is no key=value: {_meant(error.override)}"
        return f"the override {error.override!r} cannot be read ({_flat(error).split('See http')[0].strip()})"
    if isinstance(error, InterpolationResolutionError):
        return str(omegaconf_error(error))
    return _flat(error)


def _meant(argument: str) -> str:
    """What an argument without a value may have been meant for."""
    if Path(argument).is_file():
        return f"to name a file, set data.train={argument} or data.eval={argument}"
    if re.fullmatch(r"[A-Za-z_][\w.]*", argument) and not Path(argument).exists():
        return f"set {argument}=..., or encoder.model={argument} to name a model"
    return f"to name a model, set encoder.model={argument}"


def _say_error(message: str) -> None:
    """Rank 0 at once. Another rank only if it still runs after a while: most mistakes are those of
    all ranks, and the end of rank 0 ends the others."""
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


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())
