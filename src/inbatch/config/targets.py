"""Would a `_target_` node work? Its keys and values against the signature of what it names.

The signature is the schema: names and types of the parameters decide what a YAML file may hold, so
that a mistake is found before anything is built. Only dataclasses are called (losses, schedules,
samplers: plain values), so that what they refuse is told with the key as the user has typed it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any, Literal, Union

from inbatch.errors import ConfigError

_SPECIAL = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")  # Hydra's own keys
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    types.NoneType: "null",
}


def check_targets(node: Any, path: str) -> None:
    """Check every `_target_` node inside a configuration.

    Args:
        node: dicts, lists and scalars, interpolations resolved.
        path: where the node stands, for messages.

    Raises:
        ConfigError: a target that cannot be imported, a key that it does not take, one that it needs and
            does not get, a value of the wrong type, or one that a dataclass refuses.
    """
    _check_signatures(node, path)
    _make(node, path)


def _check_signatures(node: Any, path: str) -> None:
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_signature(node, path)
        for key, value in node.items():
            _check_signatures(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for position, value in enumerate(node):
            _check_signatures(value, f"{path}[{position}]")


def _make(node: Any, path: str) -> Any:
    """What a node of dataclasses stands for; None where it is not made of them alone."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return None if "'_target_'" in repr(node) else node
    callee = locate(node["_target_"], path)
    inner = {key: _make(value, f"{path}.{key}") for key, value in arguments(node).items()}
    whole = all(inner[key] is not None or node[key] is None for key in inner)
    if not is_dataclass(callee) or node.get("_partial_") or not whole:
        return None
    with named_keys(path, inner):
        return callee(**inner)


def arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a node that its target is called with."""
    return {str(key): value for key, value in node.items() if key not in _SPECIAL}


@contextmanager
def named_keys(path: str, keys: Iterable[str]) -> Iterator[None]:
    """A `ConfigError` inside that begins with one of the keys names it as the user types it.

    ``temperature is -1: ...`` becomes ``loss.temperature=-1: ...``.
    """
    try:
        yield
    except ConfigError as error:
        first = re.match(r"(\w+)( is )?", str(error))
        if first is None or first[1] not in keys:
            raise
        named = f"{path}.{first[1]}{'=' if first[2] else ''}{str(error)[first.end() :]}"
        raise ConfigError(named) from error


def locate(target: Any, path: str) -> Callable[..., Any]:
    """The object that a `_target_` names.

    Raises:
        ConfigError: there is none.
    """
    module, _, name = str(target).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{path}._target_={target!r} cannot be imported ({error}): correct it, or choose one of "
            "the YAML files of its group"
        ) from None


def unknown_key(place: str, key: str, allowed: Iterable[str], owner: str) -> ConfigError:
    """The error for a key that nothing takes."""
    names = sorted(allowed)
    takes = f"it takes {', '.join(names)}" if names else "it takes none"
    return ConfigError(place, f"is not a valid key of {owner}", nearest(key, names) or takes)


def nearest(value: str, known: Iterable[str]) -> str:
    """A question with the nearest known word, or nothing."""
    close = difflib.get_close_matches(value, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


def _check_signature(node: Mapping[str, Any], path: str) -> None:
    target = node["_target_"]
    callee = locate(target, path)
    parameters = inspect.signature(callee).parameters.values()
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key in node:
        if key not in named and key not in _SPECIAL and not takes_any:
            raise unknown_key(f"{path}.{key}", str(key), named, target)
    required = [name for name, p in named.items() if p.default is p.empty]
    if not node.get("_partial_"):
        for name in required:
            if name not in node:
                raise ConfigError(f"{path}.{name} is missing: {target} needs it; set {path}.{name}")
    hints = _hints(callee)
    for key, value in node.items():
        if key in hints and not fits(value, hints[key]):
            raise wrong_type(f"{path}.{key}", value, hints[key])


def _hints(callee: Callable[..., Any]) -> dict[str, Any]:
    function = callee.__init__ if inspect.isclass(callee) else callee
    try:
        return typing.get_type_hints(function)
    except NameError:  # some libraries import the names in their annotations for type checkers only
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Whether a YAML value can stand for a parameter with this annotation.

    A node with a `_target_` fits everything; it is checked by itself.
    """
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, inner) for inner in arguments)
    if origin is Literal:
        return value in arguments and type(value) in map(type, arguments)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return _fits_class(value, origin or hint, arguments)


def _fits_class(value: Any, kind: type, arguments: tuple[Any, ...]) -> bool:
    if issubclass(kind, Mapping):
        inner = arguments[-1] if arguments else Any
        return isinstance(value, Mapping) and all(fits(v, inner) for v in value.values())
    if issubclass(kind, str):
        return isinstance(value, str)
    if issubclass(kind, Sequence):
        return isinstance(value, list) and _fits_items(value, kind, arguments or (Any, ...))
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol without runtime checks: only a `_target_` node can be one
        return False


def _fits_items(values: list[Any], kind: type, arguments: tuple[Any, ...]) -> bool:
    if issubclass(kind, tuple) and Ellipsis not in arguments:
        return len(values) == len(arguments) and all(map(fits, values, arguments))
    return all(fits(value, arguments[0]) for value in values)


def wrong_type(place: str, value: Any, hint: Any) -> ConfigError:
    """The error for a value that does not fit the annotation."""
    choices = [choice for choice in _choices(hint) if isinstance(choice, str)]
    question = nearest(value, choices) if isinstance(value, str) else ""
    return ConfigError(f"{place}={value!r} is not {describe(hint)}: {question or 'set one'}")


def _choices(hint: Any) -> tuple[Any, ...]:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return arguments
    return tuple(choice for inner in arguments for choice in _choices(inner))


def describe(hint: Any) -> str:
    """What an annotation asks for, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(inner) for inner in arguments))
    if origin is Literal:
        names = [
            str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in arguments
        ]
        return f"one of {', '.join(names)}" if len(names) > 1 else names[0]
    if hint in _WORDS:
        return _WORDS[hint]
    kind = origin or hint
    if inspect.isclass(kind) and issubclass(kind, Mapping):
        return "a mapping {key: value, ...}"
    if inspect.isclass(kind) and issubclass(kind, Sequence):
        inner = [describe(item) for item in arguments if item is not Ellipsis]
        return f"a list ({', '.join(inner)})" if inner else "a list"
    return f"a node with a _target_ ({getattr(kind, '__name__', kind)})"
