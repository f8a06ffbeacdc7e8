"""From keyword arguments to a checked configuration, composed from the same files as on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from inbatch.config.check import check_config
from inbatch.config.composition import compose
from inbatch.config.schema import CONF, RunConfig
from inbatch.errors import ConfigError, did_you_mean

# Groups in which a name may also be a model: {group: the file that takes any model}.
_OF_MODELS = {"encoder": "pretrained", "guide": "minilm"}


def compose_run(settings: Mapping[str, Any]) -> RunConfig:
    """Compose and check the configuration of a training run.

    Args:
        settings: see `compose_command`.

    Raises:
        ConfigError: a key, a value or the name of a file is wrong.
    """
    return check_config(compose_command("train", settings))


def compose_command(command: str, settings: Mapping[str, Any]) -> DictConfig:
    """Compose the configuration of a command.

    Args:
        command: its name.
        settings: {key: value}. The name of a group with a text chooses one of its files
            (``loss="cached_gist"``); a key may be dotted (``"optimizer.lr"``) or have a dict as its value.
            Without a file of that name, ``encoder`` and ``guide`` name a model.

    Raises:
        ConfigError: the name of a file is wrong.
    """
    choices, values = _split(settings)
    config = compose(command, choices)
    for key, value in values.items():
        OmegaConf.update(config, key, value, merge=True, force_add=True)
    return config


def with_places(
    settings: Mapping[str, Any],
    *,
    columns: Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Settings with the keys of two arguments that calls have in common, where they are given."""
    names = dict(settings)
    if output_dir is not None:
        names["output_dir"] = str(output_dir)
    if columns:
        names["data.columns"] = dict(columns)
    return names


def describe(thing: Any) -> dict[str, Any]:
    """An object as the configuration records it: its class, and the plain values of a dataclass."""
    kind = type(thing)
    node: dict[str, Any] = {"_target_": f"{kind.__module__}.{kind.__qualname__}"}
    if is_dataclass(thing):
        for field in fields(thing):
            value = getattr(thing, field.name)
            node[field.name] = describe(value) if is_dataclass(value) else _plain(value)
    return node


def _split(settings: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Choices of files, as Hydra writes them, and values by dotted key."""
    choices: list[str] = []
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if not isinstance(value, str) or not (CONF / key).is_dir():
            values.update(_flat(key, value))
        elif (CONF / key / f"{value}.yaml").is_file():
            choices.append(f"{key}={value}")
        elif key in _OF_MODELS:
            choices.append(f"{key}={_OF_MODELS[key]}")
            values[f"{key}.model"] = value
        else:
            files = sorted(path.stem for path in (CONF / key).glob("*.yaml"))
            fix = did_you_mean(value, files) or f"choose one of {', '.join(files)}"
            raise ConfigError(key, "is not one of its files", fix, value=value)
    return choices, values


def _flat(key: str, value: Any) -> dict[str, Any]:
    """Values by dotted key; sources and evaluators, whose names may hold dots, stay whole."""
    whole = not isinstance(value, Mapping) or not value or key in ("data.train", "data.eval")
    if whole or "_target_" in value:
        return {key: str(value) if isinstance(value, Path) else value}
    return {
        place: each
        for name, inner in value.items()
        for place, each in _flat(f"{key}.{name}", inner).items()
    }


def _plain(value: Any) -> Any:
    """A value as YAML can hold it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return repr(value)
