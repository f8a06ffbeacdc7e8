"""Values of YAML files checked against annotations by pydantic, and its findings in plain words."""

from __future__ import annotations

import inspect
import json
import os
import re
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, TypeAdapter, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from inbatch.errors import ConfigError, did_you_mean

_PLAIN = (int, float, bool, str, types.NoneType, Any)
_LISTS = (Iterable, Collection)
#: pydantic's names of what it misses -> words. Those of a union are joined by "or".
_WORDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "none_required": "null",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping {key: value, ...}",
}
_RANGES = {"greater_than_equal": "set at least {ge}", "greater_than": "set a number above {gt}"}


def check_type(value: Any, annotation: Any, key: str) -> None:
    """Refuse a value that cannot stand for a parameter with this annotation.

    Nothing is converted: a text is not a number, and only a whole number may stand for a number. A
    node with a ``_target_`` stands for anything; what it gives is known once it has been called.

    Args:
        value: plain values, as a YAML file gives them.
        annotation: of a parameter, or a dataclass, whose keys and values are checked at any depth.
        key: where the value stands, as the user writes it; "" for the whole configuration.

    Raises:
        ConfigError: under the key of the innermost value that does not fit, or that nothing takes.
    """
    if is_node(value):
        return
    try:
        # As JSON, for which pydantic's strict mode takes lists for tuples and mappings for dataclasses.
        TypeAdapter(yaml_type(annotation)).validate_json(
            json.dumps(value, default=str), strict=True
        )
    except ValidationError as error:
        raise _in_words(error.errors(), value, annotation, key) from None


def is_node(value: Any) -> bool:
    """Tell whether a value is a mapping with a ``_target_``."""
    return isinstance(value, Mapping) and "_target_" in value


def yaml_type(annotation: Any) -> Any:
    """The type of a YAML value for an annotation: plain values, and nodes for every other class."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _PLAIN or origin in (Literal, Annotated) or _is_keys(annotation):
        return annotation
    if origin in (Union, types.UnionType):
        return Union[tuple(map(yaml_type, arguments))]  # noqa: UP007 (made from a tuple)
    kind = origin or annotation
    if kind is object or isinstance(kind, typing.TypeVar):
        return Any
    if kind in _LISTS or (_is_kind(kind, Sequence) and not _is_kind(kind, str)):
        if _is_kind(kind, tuple) and arguments and arguments[-1] is not Ellipsis:
            return tuple[tuple(map(yaml_type, arguments))]  # type: ignore[misc]  # made at run time
        return list[yaml_type(arguments[0]) if arguments else Any]  # type: ignore[misc]  # likewise
    if _is_kind(kind, Mapping):
        return dict[str, yaml_type(arguments[-1]) if arguments else Any]  # type: ignore[misc]  # likewise
    if _is_kind(kind, str) or _is_kind(kind, os.PathLike):
        return str
    return _node_of(getattr(kind, "__name__", str(kind)))


def _is_keys(annotation: Any) -> bool:
    """Tell a dataclass of schema.py from any other class, of which a YAML file holds a node."""
    return hasattr(annotation, "__pydantic_config__")


def _is_kind(kind: Any, base: type) -> bool:
    return inspect.isclass(kind) and issubclass(kind, base)


def _node_of(name: str) -> Any:
    def check(value: Any) -> Any:
        if not is_node(value):
            raise PydanticCustomError("node", "a node with a _target_ ({name})", {"name": name})
        return value

    schema = {
        "type": "object",
        "required": ["_target_"],
        "properties": {"_target_": {"type": "string"}},
    }
    return Annotated[Any, AfterValidator(check), WithJsonSchema(schema)]


def unknown_key(key: str, allowed: Iterable[str], owner: str) -> ConfigError:
    """Make the error for a key that nothing takes.

    Args:
        key: as the user writes it, dotted.
        allowed: names that could stand in place of its last part.
        owner: what takes them: a dotted key or a target.
    """
    names = sorted(allowed)
    question = did_you_mean(key.rpartition(".")[2], names)
    takes = f"use one of {', '.join(names)}" if names else "remove it, no key is taken there"
    return ConfigError(key, f"is not a valid key of {owner}", question or takes)


def _in_words(errors: list[ErrorDetails], value: Any, annotation: Any, key: str) -> ConfigError:
    """The error at the innermost place; of a union, whose branches each have one, all in one."""
    paths = [_walk(value, error["loc"]) for error in errors]
    deepest = max(paths, key=len)
    found = [error for error, path in zip(errors, paths) if path == deepest]
    place, inner = key, value
    for part in deepest:
        owner = place
        place = (
            f"{place}[{part}]" if isinstance(part, int) else f"{place}.{part}" if place else part
        )
        inner = inner[part]
    if found[0]["type"] == "unexpected_keyword_argument":
        names = [field.name for field in fields(_dataclass_at(annotation, deepest[:-1]))]
        return unknown_key(place, names, owner or "the configuration")
    return _wrong_value(found, inner, place, _dataclass_at(annotation, deepest))


def _walk(value: Any, location: tuple[int | str, ...]) -> list[Any]:
    """The parts of a location that are keys; pydantic puts the names of a union's branches between."""
    path = []
    for part in location:
        is_key = isinstance(value, Mapping) and part in value
        if is_key or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            path.append(part)
            value = value[part]
    return path


def _dataclass_at(annotation: Any, path: Sequence[Any]) -> Any:
    for part in path:
        annotation = typing.get_type_hints(annotation)[part] if _is_keys(annotation) else None
    return annotation


def _wrong_value(errors: list[ErrorDetails], value: Any, key: str, annotation: Any) -> ConfigError:
    for error in errors:
        if error["type"] in _RANGES:
            limit = _RANGES[error["type"]].format(**error["ctx"])
            return ConfigError(key, "is too small", limit, value=value)
    if errors[0]["type"] == "dataclass_type":
        keys = ", ".join(sorted(field.name for field in fields(annotation)))
        return ConfigError(
            key, "is not a group of keys", f"set {key}.<key>, one of {keys}", value=value
        )
    choices = [choice for error in errors for choice in _choices(error)]
    question = did_you_mean(value, choices) if isinstance(value, str) else ""
    wanted = " or ".join(dict.fromkeys(map(_words, errors)))
    return ConfigError(key, f"is not {wanted}", question or "correct its value", value=value)


def _choices(error: ErrorDetails) -> list[str]:
    """The values of a Literal."""
    expected = error["ctx"]["expected"] if error["type"] == "literal_error" else ""
    return re.findall(r"[^\s',]+", expected.replace("' or '", "', '").lower())


def _words(error: ErrorDetails) -> str:
    if error["type"] == "literal_error":
        names = [name for name in _choices(error) if name != "or"]
        return f"one of {', '.join(names)}" if len(names) > 1 else names[0]
    if error["type"] in ("missing", "too_long", "too_short"):
        return "a list of the right length"
    return _WORDS.get(error["type"], error["msg"])
