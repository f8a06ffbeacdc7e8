"""Lists that were written as text: JSON, and what Python and numpy print.

A csv file has no lists, so `DataFrame.to_csv` writes ``['a', 'b']``, or ``['a' 'b']`` for arrays. Trained
on as it stands, that is one text with brackets; so it is recognised, and the user says what it is.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import path_key, to_set
from inbatch.errors import ConfigError

SAMPLE = 100  # texts of a column that are looked at
# A field of a schema with it holds texts in the file, which are to be parsed.
AS_LISTS = {b"inbatch": b"lists written as text"}
_ITEM = re.compile(
    r"""\s*(?P<value>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)"""
    r"""(?:\s*,|\s+(?=\S)|\s*$)""",
    re.DOTALL,
)
_ARRAY = re.compile(r"array\((\[.*\])(?:, dtype=[^()]+)?\)", re.DOTALL)


def parse_list(text: str) -> list[str] | list[float] | None:
    """The texts or the numbers of a list that was written as text; None for anything else."""
    text = text.strip()
    if match := _ARRAY.fullmatch(text):
        text = match[1]
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        return _of_one_kind(json.loads(text))
    except ValueError:
        return _of_one_kind(_printed(text[1:-1]))


def is_written_as_lists(texts: Iterable[str | None]) -> bool:
    """Tell whether half of some texts or more are lists; those that are blank do not count."""
    found = [parse_list(text) is not None for text in texts if text and text.strip()]
    return bool(found) and 2 * sum(found) >= len(found)


def list_type(texts: Iterable[str | None]) -> pa.DataType:
    """The type of lists that are written as texts."""
    lists = [found for text in texts if text and (found := parse_list(text))]
    numbers = bool(lists) and all(isinstance(each[0], float) for each in lists)
    return pa.list_(pa.float64() if numbers else pa.string())


def to_lists(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, list[int]]:
    """Lists of a type in place of texts, and the rows of texts that are none.

    A text without brackets is the only one of its row; a blank one is null.
    """
    values: list[Any] = []
    wrong: list[int] = []
    numbers = not pa.types.is_string(kind.value_type)
    for row, text in enumerate(column.to_pylist()):
        found: Any = None
        if text is not None and text.strip():
            found = parse_list(text)
            if found is None and not text.lstrip().startswith("[") and not numbers:
                found = [text]
            if found is None or not all(
                isinstance(v, float) is (kind.value_type != pa.string()) for v in found
            ):
                wrong.append(row)
                found = None
        values.append(found)
    return pa.chunked_array([pa.array(values, kind)]), wrong


def refuse_list_texts(table: Any, roles: Roles, *, origin: str, parsed: bool, field: str) -> None:
    """Refuse columns of texts that are lists, of which no one has said what they are.

    Args:
        table: The rows.
        roles: Of its columns.
        origin: Of the rows, for messages.
        parsed: Whether ``lists=true`` could parse them.
        field: Configuration key of the source.

    Raises:
        ConfigError: There is such a column.
    """
    for name in roles.texts:
        column = table.column(name)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        rows = np.unique(np.linspace(0, max(len(column) - 1, 0), SAMPLE).astype(np.int64))
        texts = column.take(pa.array(rows[: len(column)])).to_pylist()
        refuse_lists_of(texts, name, origin=origin, parsed=parsed, field=field)


def refuse_lists_of(
    texts: Sequence[str | None], name: str, *, origin: str, parsed: bool, field: str
) -> None:
    """Refuse the texts of one column where they are lists, see `refuse_list_texts`."""
    if not is_written_as_lists(texts):
        return
    first = next(text for text in texts if text and parse_list(text) is not None)
    shown = first if len(first) <= 60 else first[:59] + "…"
    how = f"set {to_set(field, 'lists=true')} to read lists" if parsed else "store lists"
    raise ConfigError(
        path_key(field),
        f"has lists written as text in column '{name}' ({shown})",
        f"{how}, or set {to_set(field, 'lists=false')} if they are texts to train on",
        value=origin,
    )


def _printed(inner: str) -> list[Any] | None:
    """What stands between the brackets of a list in Python's or numpy's own form."""
    values: list[Any] = []
    at = 0
    while inner[at:].strip():
        match = _ITEM.match(inner, at)
        if match is None:
            return None
        try:
            values.append(ast.literal_eval(match["value"]))
        except (ValueError, SyntaxError):
            return None
        at = match.end()
    return values


def _of_one_kind(values: Any) -> list[str] | list[float] | None:
    if not isinstance(values, list):
        return None
    if all(isinstance(value, str) for value in values):
        return values
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values]
    return None
