"""Nodes with a ``_target_``, checked against the signature of what they name.

The signature is the schema: names and types of the parameters decide what a YAML file may hold, and its
defaults hold where the file leaves a key out. So a mistake is found before anything is built, in a
target of this package or of another. Only dataclasses are called (losses, schedules, samplers:
plain values), so that what they refuse is reported with the key as the user has typed it.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

from inbatch.config.types import check_type, is_node, unknown_key
from inbatch.errors import ConfigError

_SPECIAL = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")  # Hydra's own keys


def check_targets(node: Any, key: str) -> None:
    """Check every `_target_` node inside a configuration.

    Args:
        node: dicts, lists and scalars, interpolations resolved.
        key: where the node stands, as the user writes it.

    Raises:
        ConfigError: a target cannot be imported, a key is unknown or missing, a value has the wrong
            type, or a dataclass refuses it.
    """
    for place, inner in _nodes(node, key):
        _check_signature(inner, place)
    _make(node, key)


def _nodes(node: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All nodes inside a node, the outermost first, with their keys."""
    if is_node(node):
        yield key, node
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _nodes(value, f"{key}.{name}")
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield from _nodes(value, f"{key}[{position}]")


def _make(node: Any, key: str) -> Any:
    """The object that a node of dataclasses stands for; None where it is not made of them alone."""
    if isinstance(node, list):
        made = [_make(value, f"{key}[{position}]") for position, value in enumerate(node)]
        whole = all(new is not None or old is None for new, old in zip(made, node))
        return made if whole else None
    if not is_node(node):
        return None if "'_target_'" in repr(node) else node
    callee = locate(node["_target_"], key)
    inner = {name: _make(value, f"{key}.{name}") for name, value in arguments(node).items()}
    whole = all(inner[name] is not None or node[name] is None for name in inner)
    if not is_dataclass(callee) or node.get("_partial_") or not whole:
        return None
    with errors_under(key, inner):
        return callee(**inner)


def with_defaults(node: Any) -> Any:
    """A copy in which nodes of dataclasses hold the defaults of their fields too.

    So `config.yaml` records every number of a run, and a run is recognised when a default has
    changed between its start and its resumption. Defaults that are no plain values are left out.
    """
    if isinstance(node, list):
        return [with_defaults(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    found = {name: with_defaults(value) for name, value in node.items()}
    if is_node(node) and is_dataclass(callee := locate(node["_target_"], "")):
        for name, parameter in inspect.signature(callee).parameters.items():
            value = parameter.default
            value = list(value) if isinstance(value, tuple) else value
            if isinstance(value, int | float | str | list | None):
                found.setdefault(name, value)
    return found


def arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a node that its target is called with."""
    return {str(name): value for name, value in node.items() if name not in _SPECIAL}


@contextmanager
def errors_under(key: str, names: Iterable[str]) -> Iterator[None]:
    """Put `key` in front of the key of a `ConfigError` inside, where that is one of the names.

    A loss refuses its ``temperature``, and the user has typed ``loss.temperature``.
    """
    try:
        yield
    except ConfigError as error:
        if re.split(r"[.\[]", error.key)[0] not in names:
            raise
        raise error.under(f"{key}.{error.key}") from error


def locate(target: Any, key: str) -> Callable[..., Any]:
    """Import the object that a `_target_` names.

    Raises:
        ConfigError: there is none.
    """
    try:
        found: Callable[..., Any] = pkgutil.resolve_name(str(target))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{key}._target_",
            f"cannot be imported ({error})",
            "correct it, or choose one of the YAML files of its group",
            value=target,
        ) from None
    return found


def _check_signature(node: Mapping[str, Any], key: str) -> None:
    target = node["_target_"]
    callee = locate(target, key)
    parameters = inspect.signature(callee).parameters.values()
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = arguments(node)
    for name in given:
        if name not in named and not takes_any:
            raise unknown_key(f"{key}.{name}", named, target)
    required = [name for name, p in named.items() if p.default is p.empty]
    if not node.get("_partial_"):
        for name in required:
            if name not in node:
                raise ConfigError(f"{key}.{name}", f"is not set, and {target} needs it", "set it")
    hints = annotations_of(callee)
    for name, value in given.items():
        if name in hints:
            check_type(value, hints[name], f"{key}.{name}")


def annotations_of(callee: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a callable's parameters by name; empty where they cannot be resolved."""
    # Fields of a dataclass may come from a base class, whose module knows the names in their annotations.
    by_class = not inspect.isclass(callee) or is_dataclass(callee)
    try:
        return typing.get_type_hints(callee if by_class else callee.__init__, include_extras=True)
    except NameError:  # some libraries import the names in their annotations for type checkers only
        return {}
