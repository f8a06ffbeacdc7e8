"""How entry points use Hydra: overrides that reach every key, and mistakes that end in one line.

Hydra refuses `key=value` for a key that the YAML files leave out, although the target may take it, and
says no more than that. So plain overrides are handed on as Hydra's own `++key=value`, and
`inbatch.config.check_config` says what is wrong with a key, with the nearest one that is right.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import utils
from hydra.errors import (
    ConfigCompositionException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from lightning.pytorch.utilities import rank_zero_only
from omegaconf.errors import InterpolationResolutionError

from inbatch.config import omegaconf_line
from inbatch.errors import ConfigError
from inbatch.targets import nearest

#: What composing a configuration raises when the command line or a YAML file is wrong.
COMPOSITION_ERRORS = (
    ConfigCompositionException,
    OverrideParseException,
    InterpolationResolutionError,
    yaml.YAMLError,
)
_SOURCE = re.compile(r"data\.train\.(\w+)=[^{]")
_PLAIN = re.compile(r"(?P<group>[A-Za-z_][\w/]*)(?P<key>@?[\w.\-]*)=(?P<value>.*)", re.DOTALL)


def launch(app: Callable[[], None], *, conf: str) -> None:
    """Run a function that `hydra.main` has wrapped on the arguments of this process.

    A mistake in them, or in a YAML file, ends as in `user_errors`.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors; else it prints them itself
    with user_errors():
        sys.argv[1:] = complete_overrides(sys.argv[1:], Path(conf))
        try:
            app()
        except COMPOSITION_ERRORS as error:
            raise ConfigError(one_line(error)) from None


@contextmanager
def user_errors() -> Iterator[None]:
    """A `ConfigError` inside ends the process: one line on standard error, exit code 1."""
    try:
        yield
    except ConfigError as error:
        _say_error(_flat(error))
        sys.exit(1)


def instantiate(node: Any, **more: Any) -> Any:
    """`hydra.utils.instantiate`, out of which errors come as they were raised."""
    try:
        return utils.instantiate(node, **more)
    except InstantiationException as error:
        raise error.__cause__ or error from None


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
    if _SOURCE.match(
        argument
    ):  # so that a further key of this source does not take the file's place
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
        close = nearest(name, options) or f"choose one of {', '.join(options)}"
        return f"{group}={name} names no file: {close}" if group else f"{name} names no file"
    if isinstance(error, OverrideParseException):
        return f"the override {error.override!r} cannot be read ({_flat(error).split('See http')[0].strip()})"
    if isinstance(error, InterpolationResolutionError):
        return omegaconf_line(error)
    return _flat(error)


@rank_zero_only
def _say_error(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())
