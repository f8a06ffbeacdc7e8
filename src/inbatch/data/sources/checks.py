"""Checks the rows of a source once, at loading. Shape letters: N rows of the table.

No null text, label or key can then turn up in the middle of a run. Errors name the file and the row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Literal, NoReturn

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import columns_key, path_key, to_set
from inbatch.data.sources.diagnose import shorten
from inbatch.data.sources.dropped import BAD_ROW, PLACES, Dropped, count_marks, place_in_file
from inbatch.data.sources.files import num_bytes
from inbatch.data.sources.lists import is_text
from inbatch.data.sources.locate import locate_rows
from inbatch.data.sources.scores import check_types, faults_of_columns
from inbatch.data.sources.tables import Files
from inbatch.data.sources.texts import NUMBER, plain
from inbatch.errors import ConfigError

_LOCATED_BYTES = 256 << 20  # of files that are read again for the lines of rows that are dropped
Choice = Literal["error", "drop"]
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
    dataset: datasets.Dataset, roles: Roles, *, on_empty: Choice, on_bad_row: Choice, place: Place
) -> tuple[np.ndarray | None, tuple[Dropped, ...]]:
    """Row numbers of the table that can be used, int64 (None where all can), and the others by reason.

    Args:
        dataset: The rows.
        roles: Of its columns.
        on_empty: "drop" leaves out rows with a null or blank text, or a null label or key.
        on_bad_row: "drop" leaves out rows that could not be read, and those whose label or score is not a
            number.
        place: Of the rows, for messages.

    Raises:
        ConfigError: A column that does not hold texts, a key column that holds neither texts nor whole
            numbers, scores that are no numbers; a row of the kinds above that is not to be dropped.
    """
    _check_types(dataset, roles, place)
    left = np.ones(dataset.num_rows, dtype=bool)
    dropped: list[Dropped] = []
    if BAD_ROW in dataset.column_names:  # which are there to be dropped
        marks = dataset.data.column(BAD_ROW)
        left &= pc.is_null(marks).to_numpy()
        dropped += count_marks(pc.drop_null(marks).to_pylist())
    for wrong in _find_wrong(dataset, roles, place):
        wrong_N = wrong.rows() & left
        if not wrong_N.any():
            continue
        if (on_empty if wrong.empty else on_bad_row) == "error":
            row = int(np.flatnonzero(wrong_N)[0])
            refuse_row(wrong.what, wrong.column, row, roles, place, empty=wrong.empty)
        left &= ~wrong_N
        rows = np.flatnonzero(wrong_N)
        dropped.append(drop_rows(wrong.what, wrong.column, rows, roles, place))
    return None if left.all() else np.flatnonzero(left), tuple(dropped)


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Something wrong with rows. empty: nothing is there, so that `on_empty` decides."""

    what: str
    column: str
    rows: Callable[[], np.ndarray]  # bool [N]
    empty: bool = True


def _find_wrong(dataset: datasets.Dataset, roles: Roles, place: Place) -> Iterator[_Wrong]:
    """What may be wrong with rows, in the order in which it is looked for."""
    table = dataset.data
    for name in roles.texts:
        column = table.column(name)
        if column.null_count:
            yield _Wrong("an empty (null) text", name, partial(_is_null, column))
        yield _Wrong("an empty text", name, partial(_is_blank, column))
    if roles.label is not None:
        column = table.column(roles.label)
        if column.null_count:
            yield _Wrong("no label (null)", roles.label, partial(_is_null, column))
        values = label_values(column, roles.label, place)
        yield _Wrong(
            "a label that is not a finite number",
            roles.label,
            lambda: ~np.isfinite(values),
            empty=False,
        )
    if roles.key is not None and table.column(roles.key).null_count:
        yield _Wrong("no key (null)", roles.key, partial(_is_null, table.column(roles.key)))
    for what, name, wrong_N in faults_of_columns(table.table, roles):
        yield _Wrong(what, name, partial(np.asarray, wrong_N), empty=False)


def _is_null(column: pa.ChunkedArray) -> np.ndarray:
    nulls: np.ndarray = pc.is_null(column).to_numpy()
    return nulls


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
    """Labels of the kept rows, float32; None without a label column."""
    if roles.label is None:
        return None
    values = label_values(dataset.data.column(roles.label), roles.label, place)
    labels: np.ndarray = kept(values)
    return labels


def label_values(column: pa.ChunkedArray, name: str, place: Place) -> np.ndarray:
    """Numbers of a label column, float32 [N], with NaN for null and for texts that are no numbers.

    Raises:
        ConfigError: None of them is a number.
    """
    numbers = _truths_as_numbers(column)
    if is_text(numbers.type):
        texts = pc.ascii_trim_whitespace(numbers)
        numbers = pc.if_else(pc.match_substring_regex(texts, NUMBER), texts, None)
    try:
        values: np.ndarray = pc.cast(numbers, pa.float32(), safe=False).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _no_numbers(column, name, place, shorten(error)) from error
    if column.null_count < len(column) and np.isnan(values).all():
        raise _no_numbers(column, name, place, f"such as {pc.drop_null(column)[0].as_py()!r}")
    return values


def _truths_as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of "True" and "False", as csv files have them, as booleans; any other as it is."""
    if not is_text(column.type):
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
    check_types(dataset.data.table, roles, texts=True, field=place.field)
    check_key_type(dataset.data.table, roles, place)


def check_key_type(table: pa.Table, roles: Roles, place: Place) -> None:
    """Check that a key column holds texts or whole numbers.

    Raises:
        ConfigError: It holds something else.
    """
    if roles.key is not None:
        kind = table.column(roles.key).type
        if not (is_text(kind) or pa.types.is_integer(kind)):
            raise ConfigError(
                f"{columns_key(place.field)}.key",
                f"names a column of {kind}, but keys are texts or whole numbers",
                f"store it as such, or set {to_set(place.field, 'columns.key')}",
                value=roles.key,
            )


def _role_of(name: str, roles: Roles) -> str:
    role = roles.role(roles.texts.index(name))
    return "negatives" if role == "negative" else role


def _no_numbers(column: pa.ChunkedArray, name: str, place: Place, reason: str) -> ConfigError:
    return ConfigError(
        columns_key(place.field),
        f"has the label column '{name}', whose {column.type} values in {place.origin} are not numbers "
        f"({reason})",
        f"correct them, or set {to_set(place.field, 'columns.label')}",
    )


def drop_rows(what: str, column: str, rows: np.ndarray, roles: Roles, place: Place) -> Dropped:
    """Rows with these numbers, left out for one reason; large files are not read again for their lines."""
    numbers, files = rows[:PLACES].tolist(), place.files
    size = None if files is None else num_bytes(files)
    if files is None or size is None or size > _LOCATED_BYTES:
        places = tuple(map(place_in_file, numbers))
    else:
        found = locate_rows(files, roles, numbers)
        places = tuple(f"{PurePosixPath(path).name}, {where}" for path, where in found)
    return Dropped(f"with {what} in column '{column}'", len(rows), places)


def refuse_row(
    what: str, column: str, row: int, roles: Roles, place: Place, *, empty: bool, fix: str = ""
) -> NoReturn:
    """Name the file and the row that cannot be used.

    Args:
        what: What is wrong.
        column: Where.
        row: Of the whole source.
        roles: Of its columns.
        place: Of the rows.
        empty: Whether `on_empty` leaves it out, not `on_bad_row` alone.
        fix: Another way to repair it.

    Raises:
        ConfigError: Always.
    """
    name, where = place.origin, place_in_file(row)
    if place.files is not None:
        ((name, where),) = locate_rows(place.files, roles, [row])
    setting = to_set(place.field, f"{'on_empty' if empty else 'on_bad_row'}=drop")
    raise ConfigError(
        path_key(place.field),
        f"has {what} in column '{column}', {where}",
        f"{fix or ('fill it' if empty else 'correct it')}, or set {setting}",
        value=name,
    )
