"""The Arrow type of a column of JSON values, and whether a value has it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

_INT64 = range(-(2**63), 2**63)
_UNKNOWN = pa.null()


def infer(values: Iterable[Any], known: pa.DataType = _UNKNOWN) -> pa.DataType:
    """The type of values: that of the first text, list or object among them, else numbers or truth values.

    What is not known yet (no value but null, lists that are all empty) is of type null.

    Args:
        values: Values of one column.
        known: The type of the values before them, so that a column can be looked at part by part.
    """
    is_list, is_object = pa.types.is_list(known), pa.types.is_struct(known)
    found = [value for value in values if value is not None]
    first = None
    if not (is_list or is_object or pa.types.is_string(known)):
        first = next((v for v in found if isinstance(v, str | list | dict)), None)
    if isinstance(first, str) or pa.types.is_string(known):
        return pa.string()
    if isinstance(first, list) or is_list:
        items = (each for v in found if isinstance(v, list) for each in v)
        return pa.list_(infer(items, known.value_type if is_list else _UNKNOWN))
    if isinstance(first, dict) or is_object:
        objects = [value for value in found if isinstance(value, dict)]
        kinds = {part.name: part.type for part in _parts(known)}
        names = dict.fromkeys([*kinds, *(name for value in objects for name in value)])
        return pa.struct(
            [(n, infer((v.get(n) for v in objects), kinds.get(n, _UNKNOWN))) for n in names]
        )
    if not found:
        return known
    if all(isinstance(value, bool) for value in found) and known in (_UNKNOWN, pa.bool_()):
        return pa.bool_()
    is_whole = all(isinstance(value, int) for value in found) and known != pa.float64()
    return pa.int64() if is_whole else pa.float64()


def is_list(kind: pa.DataType) -> bool:
    """Tell whether a column holds lists, be it one of JSON or of an Arrow file in plain types."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def is_open(kind: pa.DataType) -> bool:
    """Tell whether a part of a type is not known."""
    return pa.types.is_null(kind) or any(is_open(part.type) for part in _parts(kind))


def close(kind: pa.DataType) -> pa.DataType:
    """The type with texts wherever it is not known."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(close(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(close(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(part.name, close(part.type)) for part in _parts(kind)])
    return kind


def fits(value: Any, kind: pa.DataType) -> bool:
    """Tell whether a value is null or of a type."""
    if value is None:
        return True
    if pa.types.is_string(kind):
        return isinstance(value, str) and _is_text(value)
    if pa.types.is_list(kind):
        return isinstance(value, list) and all(fits(each, kind.value_type) for each in value)
    if pa.types.is_struct(kind):
        return isinstance(value, dict) and all(
            fits(value.get(p.name), p.type) for p in _parts(kind)
        )
    if isinstance(value, bool) or pa.types.is_boolean(kind):
        return isinstance(value, bool) and pa.types.is_boolean(kind)
    if pa.types.is_integer(kind):
        return isinstance(value, int) and value in _INT64
    return isinstance(value, int | float)


def describe(value: Any) -> str:
    """A value that is out of place, in words."""
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return "a text" if _is_text(value) else "half a character (a lone surrogate)"
    return "a list" if isinstance(value, list) else "an object"


def name_kind(kind: pa.DataType) -> str:
    """The values of a type, in words."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "texts"
    if is_list(kind):
        return f"lists of {name_kind(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "objects"
    return "truth values" if pa.types.is_boolean(kind) else "numbers"


def _parts(kind: pa.DataType) -> Sequence[pa.Field]:
    """The fields of a list or an object."""
    if pa.types.is_struct(kind):
        return [kind.field(i) for i in range(kind.num_fields)]
    return [kind.value_field] if is_list(kind) else []


def _is_text(value: str) -> bool:
    """Tell whether UTF-8 can hold a text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
