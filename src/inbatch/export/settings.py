"""The settings of a run as its card shows them: nothing about this machine, and defaults apart.

A default is what `conf/train.yaml` composes where nothing is chosen, or what a target's signature has.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from inbatch.config.schema import CONF, RunConfig
from inbatch.config.targets import locate
from inbatch.errors import ConfigError
from inbatch.export.model_name import local_name

_OF_THIS_MACHINE = {"output_dir", "data_dir", "cache_dir", "store_dir", "save_dir", "logger"}
_HYDRAS = {"_partial_", "_convert_", "_recursive_", "_args_"}
_ABSENT = object()


def public(values: Any) -> Any:
    """A copy of nested settings without folders of this machine; of a path the name is left."""
    if isinstance(values, Mapping):
        kept = {k: v for k, v in values.items() if k not in _OF_THIS_MACHINE | _HYDRAS}
        return {key: public(value) for key, value in kept.items()}
    if isinstance(values, list | tuple):
        return [public(value) for value in values]
    return file_name(values) if isinstance(values, str) else values


def file_name(text: str) -> str:
    """The name of a local file, pattern of files or model; every other text as it is."""
    if "/" not in text or "\n" in text or "://" in text:
        return text
    path = Path(text).expanduser()
    if path.is_dir():
        return local_name(text)
    rooted = text.startswith(("/", "./", "../", "~/"))
    return (path.name or text) if rooted or path.suffix in _FILES or path.exists() else text


_FILES = {".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow", ".ckpt", ".txt", ".gz", ".zst"}


def changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the defaults, in the same nesting.

    A node with another target than its default keeps its `_target_`.
    """
    different: dict[str, Any] = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, Mapping):
            inner = _changed_node(value, default if isinstance(default, Mapping) else {})
            if inner or (not value and default):
                different[name] = inner
        elif value != default:
            different[name] = value
    return different


def _changed_node(node: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    target = node.get("_target_")
    if target is None:
        return changed(node, default)
    same = default if target == default.get("_target_") else {}
    known = {**_signature_defaults(target), **same}
    return {
        key: value
        for key, value in changed(node, {**dict.fromkeys(node, _ABSENT), **known}).items()
        if key not in _HYDRAS
    }


def _signature_defaults(target: str) -> dict[str, Any]:
    try:
        parameters = inspect.signature(locate(target, "settings")).parameters.values()
    except ConfigError:  # an object of a class that only the running program knows
        return {}
    empty = inspect.Parameter.empty
    found = {p.name: p.default for p in parameters if p.default is not empty}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def composed_defaults() -> dict[str, Any]:
    """The groups as `conf/train.yaml` composes them where nothing is chosen, by name."""
    entries = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {k: v for entry in entries if isinstance(entry, dict) for k, v in entry.items()}
    keys, found = asdict(RunConfig()), {}
    for group, name in chosen.items():
        file = CONF / group / f"{name}.yaml"
        if name is not None and file.is_file():
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
            found[group] = {**(keys[group] or {}), **(values or {})}
    return found
