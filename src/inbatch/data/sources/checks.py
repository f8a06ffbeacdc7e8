"""Checks the rows of a source once, at loading. Shape letters: N rows of the table.

No null text, label or key can then turn up in the middle of a run. Errors name the file and the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import columns_key, path_key, to_set
from inbatch.data.sources.diagnose import shorten
from inbatch.data.sources.files import Files, locate_row
from inbatch.data.sources.lists import is_text
from inbatch.data.sources.texts import plain
from inbatch.errors import ConfigError

OnEmpty = Literal["error", "drop"]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows come from, for messages.

    origin: what to call it. files: the files, to find the one that holds a row. field:
    configuration key of the source.
    """

    origin: str
    files: Files | None
    field: str


def kept_rows(
    dataset: datasets.Dataset, roles: Roles, *, on_empty: OnEmpty, place: Place
) -> np.ndarray | None:
    """Row numbers of the table that can be used, int64; None where all can.

    Raises:
        ConfigError: A column that does not hold texts, a key column that holds neither texts nor whole
            numbers, or with ``on_empty="error"`` a null or blank text, or a null key.
    """
    _check_types(dataset, roles, place)
    keep = np.ones(dataset.num_rows, dtype=bool)
    others = [name for name in (roles.label, roles.key) if name is not None]
    if on_empty == "drop":
        for name in roles.texts:
            keep &= ~_is_blank(dataset.data.column(name))
        for name in others:
            keep &= pc.is_valid(dataset.data.column(name)).to_numpy()
    else:
        for name in roles.texts:
            _refuse_nulls(dataset, name, "an empty (null) text", place)
            blank_N = _is_blank(dataset.data.column(name))
            if blank_N.any():
                _refuse("an empty text", name, blank_N, place)
        if roles.key is not None:
            _refuse_nulls(dataset, roles.key, "no key (null)", place)
    return None if keep.all() else np.flatnonzero(keep)


def _is_blank(column: pa.ChunkedArray) -> np.ndarray:
    """Mark texts that are null, empty or white space only: bool [N]. Copies one chunk at a time."""
    return np.concatenate([np.zeros(0, dtype=bool), *map(is_blank, column.chunks)])


def is_blank(texts: pa.Array) -> np.ndarray:
    """Mark texts that are null, empty or white space only: bool [n]."""
    blank = pc.fill_null(pc.equal(pc.binary_length(_trimmed(plain(texts))), 0), True)
    marked: np.ndarray = blank.to_numpy(zero_copy_only=False)
    return marked


def _trimmed(chunk: pa.Array) -> pa.Array:
    try:
        return pc.utf8_trim_whitespace(chunk)
    except pa.ArrowInvalid:  # not UTF-8, which reading the texts will refuse
        return pc.ascii_trim_whitespace(chunk)


def read_labels(
    dataset: datasets.Dataset,
    roles: Roles,
    *,
    kept: Callable[[np.ndarray], np.ndarray],
    place: Place,
) -> np.ndarray | None:
    """Labels of the kept rows, float32; None without a label column.

    Raises:
        ConfigError: A label that is not a number.
    """
    if roles.label is None:
        return None
    column = dataset.data.column(roles.label)
    try:
        values = pc.cast(_truths_as_numbers(column), pa.float32(), safe=False).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(
            columns_key(place.field),
            f"has the label column '{roles.label}', whose {column.type} values in "
            f"{place.origin} are not numbers ({shorten(error)})",
            f"correct them, or set {to_set(place.field, 'columns.label')}",
        ) from error
    missing = np.isnan(values)
    if kept(missing).any():
        _refuse("no label (null or NaN)", roles.label, missing, place)
    labels: np.ndarray = kept(values)
    return labels


def _truths_as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of "True" and "False", as csv files have them, as booleans; any other as it is."""
    if not _is_text(column.type):
        return column
    words = pc.unique(pc.utf8_lower(column)).drop_null().to_pylist()
    return pc.cast(column, pa.bool_()) if set(words) <= {"true", "false"} else column


def numbers_only(texts: Sequence[str]) -> bool:
    """Tell whether every text reads as a number, as in a csv column of ids or labels."""
    return bool(texts) and all(_NUMBER.fullmatch(text.strip()) for text in texts)


def _check_types(dataset: datasets.Dataset, roles: Roles, place: Place) -> None:
    for name in roles.texts:
        kind = dataset.data.column(name).type
        if not is_text(kind):
            raise ConfigError(
                columns_key(place.field),
                f"uses column '{name}', which holds {kind} instead of text",
                f"set {to_set(place.field, f'columns.{_role_of(name, roles)}')} to another "
                "column, or store it as strings",
            )
    check_key_type(dataset.data.table, roles, place)


def check_key_type(table: pa.Table, roles: Roles, place: Place) -> None:
    """Check that a key column holds texts or whole numbers.

    Raises:
        ConfigError: It holds something else.
    """
    if roles.key is not None:
        kind = table.column(roles.key).type
        if not (_is_text(kind) or pa.types.is_integer(kind)):
            raise ConfigError(
                f"{columns_key(place.field)}.key",
                f"names a column of {kind}, but keys are texts or whole numbers",
                f"store it as such, or set {to_set(place.field, 'columns.key')}",
                value=roles.key,
            )


def _role_of(name: str, roles: Roles) -> str:
    role = roles.role(roles.texts.index(name))
    return "negatives" if role == "negative" else role


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _refuse_nulls(dataset: datasets.Dataset, name: str, what: str, place: Place) -> None:
    column = dataset.data.column(name)
    if column.null_count:
        _refuse(what, name, pc.is_null(column).to_numpy(), place)


def _refuse(what: str, column: str, wrong_N: np.ndarray, place: Place) -> None:
    refuse_row(what, column, int(np.flatnonzero(wrong_N)[0]), place)


def refuse_row(
    what: str, column: str, row: int, place: Place, *, fix: str | None = None
) -> NoReturn:
    """Name the file and the row that cannot be used.

    Args:
        what: What is wrong.
        column: Where.
        row: Of the whole source.
        place: Of the rows.
        fix: None for what `on_empty=drop` leaves out.

    Raises:
        ConfigError: Always.
    """
    name, row = (place.origin, row) if place.files is None else locate_row(place.files, row)
    raise ConfigError(
        path_key(place.field),
        f"has {what} in column '{column}', row {row} (counted from 0)",
        fix or f"fill it, or set {to_set(place.field, 'on_empty=drop')}",
        value=name,
    )
