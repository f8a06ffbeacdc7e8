"""Which format data have: the one that is named, or the only one that recognises them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, NamedTuple, cast

from omegaconf import OmegaConf

from inbatch.config.schema import CONF
from inbatch.config.targets import arguments, check_targets, locate
from inbatch.data.formats.base import Format, Head
from inbatch.errors import ConfigError, did_you_mean

AUTO = "auto"
AS_SET = "as set"  # the reason for a format that is named
PLAIN = "columns"  # the format of data that no other format recognises
FOLDER = CONF / "data" / "format"


class Chosen(NamedTuple):
    """A format by its name, and why it was taken."""

    name: str
    format: Format
    reason: str

    def describe(self) -> str:
        """One line; plain columns that nobody asked about need none."""
        since = "" if self.reason == AS_SET else "since "
        return f"read as {self.name}, {since}{self.reason}" if self.reason else ""


@cache
def formats() -> dict[str, Mapping[str, Any]]:
    """The node of each format: the files of conf/data/format/."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(node, dict)
        found[path.stem] = {str(key): value for key, value in node.items()}
    return found


def check_format(value: object, *, field: str) -> None:
    """Check a source's `format`: auto, a name, or a format's keys, with its `name` or `_target_` among them.

    Raises:
        ConfigError: An unknown name or key, or a value that the format does not take.
    """
    name, keys = _parts(value, field=field)
    if name is not None:
        _make(name, keys, field=field)
    elif keys and not any(set(keys) <= _keys_of(node) for node in formats().values()):
        known = sorted({key for node in formats().values() for key in _keys_of(node)})
        unknown = next(key for key in keys if key not in known) if {*keys} - {*known} else None
        if unknown is None:
            raise ConfigError(
                field, f"has the keys {', '.join(keys)}, of several formats", "keep one's"
            )
        raise ConfigError(
            f"{field}.{unknown}",
            "is not a key of any format",
            did_you_mean(unknown, known) or f"choose from name, {', '.join(known)}",
        )


def choose(value: object, head: Head, *, field: str) -> Chosen:
    """The format of data that begin with `head`.

    Args:
        value: The source's `format`, see `check_format`.
        head: The beginning of the data.
        field: Configuration key of `value`.

    Raises:
        ConfigError: See `check_format`; or several formats recognise the data, or none of those that have the
            keys given.
    """
    name, keys = _parts(value, field=field)
    if name is not None:
        return Chosen(str(name), _make(name, keys, field=field), AS_SET)
    found = []
    for each, node in formats().items():
        if set(keys) <= _keys_of(node):
            made = _make(each, keys, field=field)
            if reason := made.recognise(head):
                found.append(Chosen(each, made, reason))
    if len(found) > 1:
        names = " and ".join(chosen.name for chosen in found)
        raise ConfigError(
            field, f"could be {names} for {head.path}", f"set {field}.name to one of them"
        )
    if found:
        return found[0]
    if keys:
        able = [each for each, node in formats().items() if set(keys) <= _keys_of(node)]
        raise ConfigError(
            f"{field}.{next(iter(keys))}",
            f"is a key of {' and '.join(able)}, and {head.path} was not recognised as such",
            f"set {field}.name={able[0]} too, or remove it",
        )
    return Chosen(PLAIN, _make(PLAIN, {}, field=field), "")


def is_auto(value: object) -> bool:
    """Whether nothing is said of the format."""
    return value in (None, AUTO)


def _parts(value: object, *, field: str) -> tuple[Any, dict[str, Any]]:
    """What names the format (None where nothing does), and its keys."""
    if is_auto(value):
        return None, {}
    if isinstance(value, str):
        return value, {}
    if not isinstance(value, Mapping):
        known = ", ".join([AUTO, *formats()])
        raise ConfigError(field, "is not a format", f"choose from {known}", value=value)
    keys = {str(key): item for key, item in value.items() if key != "name"}
    name = value.get("name")
    if "_target_" in keys:
        return keys["_target_"], arguments(keys)
    return (None if is_auto(name) else name), keys


def _make(name: str, keys: Mapping[str, Any], *, field: str) -> Format:
    node = formats().get(name)
    if node is None and "." not in str(name):
        known = [AUTO, *formats()]
        fix = did_you_mean(str(name), known) or f"choose from {', '.join(known)}"
        raise ConfigError(field, "is not a format", fix, value=name)
    whole = {**(node or {"_target_": name}), **keys}
    check_targets(whole, field)
    target = locate(whole["_target_"], field)
    if not is_dataclass(target):
        raise ConfigError(f"{field}._target_", "is not a dataclass", "name a format", value=name)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments(whole).items()}
    return cast(Format, target(**values))


def _keys_of(node: Mapping[str, Any]) -> set[str]:
    return set(inspect.signature(locate(node["_target_"], "format")).parameters)
