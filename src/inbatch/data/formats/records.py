"""The records of files, one after the other, and where each one is."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import IO, Any

import datasets
import fsspec

from inbatch.data.formats.base import BadRecordError, Head
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.diagnose import FaultyFileError
from inbatch.data.sources.dropped import BAD_ROW, LINE, place_in_file, read_mark
from inbatch.data.sources.files import LOAD_ERRORS, as_error, peek_columns
from inbatch.data.sources.tables import Files, stream_rows
from inbatch.errors import ConfigError

Place = Callable[[], str]  # says where a record is
HEAD_RECORDS = 1000  # that a format is recognised by
_LOOK_LINES = 10  # where the first one is broken
_GOES_ON = re.compile(rb"^(\xef\xbb\xbf)?\s*\[\s*\{|[\[{,]\s*$")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def head_of(files: Files, *, field: str) -> Head:
    """The beginning of the first file without the records that cannot be read.

    Whoever reads the whole file reports those; here they must not hide what the others are.
    """
    path = files.paths[0]
    by_line = files.kind == "json" and _has_record_a_line(path)

    def records() -> list[Any]:
        first = replace(files.only(path), reading=replace(files.reading, on_bad_row="drop"))
        values = (
            (r for _, r in _json_records(path, field=field, checked=False))
            if by_line
            else stream_rows(first)
        )
        found: list[Any] = []
        with suppress(FaultyFileError, *LOAD_ERRORS):
            found.extend(islice(values, HEAD_RECORDS))
        return [
            _without_line(record)
            for record in found
            if not isinstance(record, BadRecordError)
            and (not isinstance(record, dict) or record.pop(BAD_ROW, None) is None)
        ]

    def names() -> Sequence[str]:
        if by_line and (found := records()):
            return list(dict.fromkeys(name for r in found if isinstance(r, Mapping) for name in r))
        return peek_columns(files, field=field)

    return Head(path, names, records)


def _without_line(record: Any) -> Any:
    if isinstance(record, dict):
        record.pop(LINE, None)
    return record


def head_of_table(table: datasets.Dataset, *, origin: str) -> Head:
    """The beginning of rows in memory or of a hub data set."""
    return Head(
        origin, lambda: table.column_names, lambda: list(islice(_rows(table), HEAD_RECORDS))
    )


def read_records(files: Files, *, field: str) -> Iterator[tuple[Place, Any]]:
    """All records, each with a function that gives its place: the file and the line, or the row.

    A line that is not JSON gives a `BadRecordError` in place of a record.

    Raises:
        ConfigError: A file that cannot be read.
    """
    for path in files.paths:
        if files.kind == "json":
            yield from _json_records(path, field=field)
        else:
            yield from _table_records(files.only(path), field=field)


def _table_records(files: Files, *, field: str) -> Iterator[tuple[Place, Any]]:
    try:
        for number, record in enumerate(stream_rows(files)):
            where = place_in_file(number, record.pop(LINE, None))
            if (marked := record.pop(BAD_ROW, None)) is None:
                yield _place(files.paths[0], where), record
            else:
                place, reason = read_mark(marked)
                yield place.__str__, BadRecordError(reason, "correct it", reason=reason)
    except FaultyFileError as fault:
        raise as_error(fault, field=field) from None


def table_records(table: datasets.Dataset, *, origin: str) -> Iterator[tuple[Place, Any]]:
    """The rows of a table as records."""
    for number, record in enumerate(_rows(table)):
        yield _place(origin, place_in_file(number)), record


def _rows(table: datasets.Dataset) -> Iterator[dict[str, Any]]:
    """Rows in which classes have their names: their numbers mean another class in another data set."""
    classes = {
        name: dict(enumerate(kind.names))
        for name, kind in table.features.items()
        if isinstance(kind, datasets.ClassLabel)
    }
    for row in table:
        yield {**row, **{name: names.get(row[name]) for name, names in classes.items()}}


def _place(path: str, where: str) -> Place:
    return lambda: f"{path}, {where}"


def _has_record_a_line(path: str) -> bool:
    """Whether a file has a JSON object, or a list of texts, on its first line; else it may be one list.

    A first line that is broken says nothing, so that the next ones are looked at, unless a list or an object
    goes on behind it.
    """
    with suppress(*LOAD_ERRORS), _bytes(path) as file:
        lines = islice((line for line in file if line.strip()), _LOOK_LINES)
        first = next(lines, b"")
        record = _parsed(first, first=True, checked=False)
        if isinstance(record, BadRecordError) and not _GOES_ON.search(first):
            return any(
                map(_is_record, (_parsed(line, first=False, checked=False) for line in lines))
            )
        return _is_record(record)
    return False


def _is_record(value: object) -> bool:
    of_texts = isinstance(value, list) and value != [] and not isinstance(value[0], Mapping)
    return of_texts or isinstance(value, Mapping)


def _json_records(path: str, *, field: str, checked: bool = True) -> Iterator[tuple[Place, Any]]:
    if not _has_record_a_line(path):  # the whole file is one list, or not JSON
        for number, record in enumerate(_whole(path, field=field)):
            yield _place(path, place_in_file(number)), record
        return
    with _bytes(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield (
                    _place(path, f"line {number}"),
                    _parsed(line, first=number == 1, checked=checked),
                )


def _parsed(line: bytes, *, first: bool, checked: bool = True) -> Any:
    """The record of a line, or the error that its reader raises when it comes to it."""
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
        record = json.loads(text, object_pairs_hook=_object if checked else None)
    except json.JSONDecodeError as error:
        problem = f"is not JSON ({error.msg}, column {error.colno})"
        return BadRecordError(problem, "correct it", reason="that are no JSON")
    except UnicodeDecodeError:
        return BadRecordError("is not UTF-8", "convert it", reason="that are not UTF-8")
    except (RecursionError, ValueError):
        problem = "is too deep, or has a number that is too long,"
        return BadRecordError(problem, "correct it", reason="that are no JSON")
    except BadRecordError as error:
        return error
    return _encodable(record) if checked and _SURROGATE.search(line) else record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose names must differ: no one can tell which value counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        problem = f"has '{name}' twice"
        raise BadRecordError(problem, "keep one of them", reason="that have a name twice")
    return found


def _encodable(record: Any) -> Any:
    """A record, or an error where it has half of a character."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problem = "has half of a character (a lone surrogate)"
        return BadRecordError(problem, "correct it", reason="with half of a character")
    return record


def _whole(path: str, *, field: str) -> list[Any]:
    try:
        with _bytes(path) as file:
            text = file.read()
        records = json.loads(text, object_pairs_hook=_object)
    except BadRecordError as error:
        problem = f"{error.problem} in one of its records"
        raise ConfigError(path_key(field), problem, error.fix, value=path) from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(
            path_key(field), f"cannot be read as json ({error})", "correct it", value=path
        ) from error
    if not isinstance(records, list):
        raise ConfigError(
            path_key(field),
            "is one JSON object over several lines",
            "write one object a line, or a list of objects",
            value=path,
        )
    return list(map(_encodable, records)) if _SURROGATE.search(text) else records


def _bytes(path: str) -> IO[bytes]:
    file: IO[bytes] = fsspec.open(path, "rb", compression="infer").open()
    return file
