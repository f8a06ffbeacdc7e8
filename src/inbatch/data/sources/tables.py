"""The rows of files as Arrow tables, read by the rules of each format, and the copy that is made of them.

Every record of a file is a row of its tables. One that cannot be read ends the reading, or with
``on_bad_row="drop"`` is a row without values whose reason stands in the column `BAD_ROW`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa

from inbatch.data.sources.arrow_tables import arrow_schema, arrow_tables
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.csv_tables import CsvReader
from inbatch.data.sources.diagnose import Fault, FaultyFileError
from inbatch.data.sources.dropped import BAD_ROW, LINE, mark, place_in_file
from inbatch.data.sources.json_tables import JsonReader
from inbatch.data.sources.json_types import close, infer, is_open
from inbatch.data.sources.line_tables import TEXT, line_tables
from inbatch.data.sources.list_texts import (
    AS_LISTS,
    SAMPLE,
    is_written_as_lists,
    list_type,
    to_lists,
)
from inbatch.data.sources.mixed_columns import Mixed, conform, is_text
from inbatch.data.sources.reading import Reading

KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
# Kinds of files that texts alone may come from: a text in each line of the last.
TEXT_KINDS = {**KINDS, ".txt": "lines"}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LOOK_ROWS = 1000  # of a JSON file, whose values are looked at together for the type of a column


@dataclass(frozen=True, slots=True)
class Files:
    """Files of one kind, in reading order."""

    paths: tuple[str, ...]
    suffix: str  # a key of TEXT_KINDS
    reading: Reading = Reading()
    mixed: Mixed = Mixed()

    @property
    def kind(self) -> str:
        """csv, json, parquet, arrow or lines."""
        return TEXT_KINDS[self.suffix]

    @property
    def has_lines(self) -> bool:
        """Whether a row stands in a line."""
        return self.kind in ("csv", "json", "lines")

    def only(self, path: str) -> Files:
        """One of them."""
        return replace(self, paths=(path,))


def column_names(files: Files) -> list[str]:
    """Names of the columns of the first file.

    Raises:
        FaultyFileError: It cannot be read.
    """
    path = files.paths[0]
    if files.kind == "lines":
        return [TEXT]
    with _opened(path) as file:
        if files.kind == "csv":
            return _csv_reader(files, path, file).names
        if files.kind == "json":
            return _json_reader(files, path, file).names()
        return arrow_schema(file, path=path).names


def find_schema(files: Files, roles: Roles) -> pa.Schema:
    """Names and types of the columns in use.

    Fields of csv files are texts. A column of JSON values has the type of the first of them (see
    `json_types.infer`). A label or score that is a whole number may be any number elsewhere.

    Raises:
        FaultyFileError: A file that was looked at cannot be read, or lacks a column.
    """
    schema = files.mixed.schema(_stored_schema(files, roles))
    if not files.reading.lists:
        return schema
    tables = read_tables(files, files.paths[0], schema)
    first = next(tables, schema.empty_table()).slice(0, SAMPLE)
    return _with_lists(schema, first, [name for name in roles.used if name != roles.query])


def _with_lists(schema: pa.Schema, first: pa.Table, names: Sequence[str]) -> pa.Schema:
    """The schema with lists for those of the columns `names` whose texts are lists in the first rows."""
    others = {name: first.column(name).to_pylist() for name in names}
    fields = [
        pa.field(f.name, list_type(others[f.name]), metadata=AS_LISTS)
        if is_text(f.type) and is_written_as_lists(others.get(f.name, ()))
        else f
        for f in schema
    ]
    return pa.schema(fields)


def _stored_schema(files: Files, roles: Roles) -> pa.Schema:
    used = list(dict.fromkeys(roles.used))
    if files.kind in ("csv", "lines"):
        return pa.schema([(name, pa.string()) for name in used])
    kinds: dict[str, pa.DataType] = {}
    for path in files.paths:
        with _opened(path) as file:
            if files.kind == "json":
                _infer_more(kinds, _json_reader(files, path, file), used)
            else:
                schema = arrow_schema(file, path=path)
                found = {name: schema.field(name).type for name in used if name in schema.names}
                kinds |= {
                    n: kind for n, kind in found.items() if n not in kinds or is_open(kinds[n])
                }
        if kinds.keys() == set(used) and not any(map(is_open, kinds.values())):
            break
    numbers = [roles.label, *roles.scores]
    kinds |= {
        name: _of_numbers(kinds[name]) for name in numbers if name is not None and name in kinds
    }
    return pa.schema([(name, close(kinds.get(name, pa.null()))) for name in used])


def _of_numbers(kind: pa.DataType) -> pa.DataType:
    """The type of numbers, or lists of them, where whole ones or nothing came first."""
    if pa.types.is_list(kind):
        return pa.list_(_of_numbers(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_of_numbers(kind.value_type))
    return pa.float64() if pa.types.is_null(kind) or pa.types.is_integer(kind) else kind


def read_tables(
    files: Files, path: str, schema: pa.Schema, *, lines: bool = False
) -> Iterator[pa.Table]:
    """The rows of one of some files, with the columns of a schema, and `BAD_ROW` where rows may be dropped.

    On request `LINE` stands beside them, if the file has lines.

    Raises:
        FaultyFileError: What is wrong with the file.
    """
    fields = [pa.field(f.name, pa.string()) if f.metadata == AS_LISTS else f for f in schema]
    parsed = any(f.metadata == AS_LISTS for f in schema)
    start = 0
    for table in _read_stored(files, path, pa.schema(fields), lines=lines or parsed):
        table = _parse_lists(table, schema, path, start)
        start += table.num_rows
        yield table if lines or LINE not in table.column_names else table.drop_columns(LINE)


def _read_stored(files: Files, path: str, schema: pa.Schema, *, lines: bool) -> Iterator[pa.Table]:
    drop = files.reading.on_bad_row == "drop"
    with _opened(path) as file:
        if files.kind == "csv":
            yield from _csv_reader(files, path, file).tables(schema.names, lines=lines)
        elif files.kind == "json":
            yield from _json_reader(files, path, file).tables(schema, lines=lines)
        elif files.kind == "lines":
            yield from line_tables(file, path=path, drop=drop, lines=lines)
        else:
            for table in arrow_tables(file, schema.names, path=path, drop=drop):
                yield conform(table, schema, path, files.mixed)


def stream_rows(files: Files) -> Iterator[dict[str, Any]]:
    """The rows of files one by one, as Python values of all columns; `LINE` of csv files, and `BAD_ROW` where
    rows may be dropped.

    Texts of a table that are lists are parsed on request, see `Reading`.

    Raises:
        FaultyFileError: What is wrong with a file.
    """
    for path in files.paths:
        with _opened(path) as file:
            if files.kind == "json":
                yield from _json_reader(files, path, file).values()
                continue
            if files.kind == "csv":
                reader = _csv_reader(files, path, file)
                tables = reader.tables(list(dict.fromkeys(reader.names)), lines=True)
            else:
                names = arrow_schema(file, path=path).names
                file.seek(0)
                drop = files.reading.on_bad_row == "drop"
                tables = arrow_tables(file, names, path=path, drop=drop)
            for table in _lists_parsed(tables, path) if files.reading.lists else tables:
                yield from table.to_pylist()


def _lists_parsed(tables: Iterator[pa.Table], path: str) -> Iterator[pa.Table]:
    schema: pa.Schema | None = None
    start = 0
    for table in tables:
        if schema is None:
            names = [name for name in table.column_names if name not in (BAD_ROW, LINE)]
            schema = _with_lists(table.select(names).schema, table.slice(0, SAMPLE), names)
        yield _parse_lists(table, schema, path, start)
        start += table.num_rows


def find_fault(files: Files, roles: Roles) -> FaultyFileError | None:
    """What is wrong with the first file that has a fault; None where all can be read."""
    for path in files.paths:
        try:
            schema = find_schema(files, roles)
            for table in read_tables(files, path, schema):
                table.validate(full=True)
        except FaultyFileError as fault:
            return fault
        except pa.ArrowInvalid as error:
            return FaultyFileError(path, Fault(f"is damaged ({error})", "write it again"))
    return None


def _infer_more(kinds: dict[str, pa.DataType], reader: JsonReader, used: Sequence[str]) -> None:
    """Add the types of columns that are not known yet, as far as a file tells them."""
    left = [name for name in used if name not in kinds or is_open(kinds[name])]
    rows = reader.values()
    while part := list(islice(rows, _LOOK_ROWS)):
        for name in left:
            kinds[name] = infer((row.get(name) for row in part), kinds.get(name, pa.null()))
        if len(part) == _LOOK_ROWS and not any(is_open(kinds[name]) for name in left):
            return


def _parse_lists(table: pa.Table, schema: pa.Schema, path: str, start: int) -> pa.Table:
    """The rows of a file, from its row `start` on, with lists where they are written as text."""
    for i, column in enumerate(schema):
        if column.metadata != AS_LISTS:
            continue
        lists, wrong = to_lists(table.column(i), column.type)
        table = table.set_column(i, column, lists)
        places = [place_of(table, row, start) for row in wrong]
        if wrong and BAD_ROW not in table.column_names:
            problem = f"has a broken list in column '{column.name}', {places[0]}"
            raise FaultyFileError(
                path, Fault(problem, "correct it, or leave such rows out with «on_bad_row=drop»")
            )
        if wrong:
            marks = table.column(BAD_ROW).to_pylist()
            for row, place in zip(wrong, places):
                name = PurePosixPath(path).name
                marks[row] = mark(f"{name}, {place}", f"with a broken list in '{column.name}'")
            table = table.drop_columns(BAD_ROW).append_column(BAD_ROW, pa.array(marks, pa.string()))
    return table


def place_of(table: pa.Table, row: int, start: int) -> str:
    """The place in its file of a row of a table, which begins with the row `start`."""
    line = table.column(LINE)[row].as_py() if LINE in table.column_names else None
    return place_in_file(start + row, line)


def _csv_reader(files: Files, path: str, file: IO[bytes]) -> CsvReader:
    rules = files.reading.csv
    rules = replace(rules, delimiter=rules.delimiter or _DELIMITERS[files.suffix])
    return CsvReader(file, path=path, rules=rules, drop=files.reading.on_bad_row == "drop")


def _json_reader(files: Files, path: str, file: IO[bytes]) -> JsonReader:
    drop = files.reading.on_bad_row == "drop"
    return JsonReader(file, path=path, drop=drop, mixed=files.mixed)


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    with fsspec.open(path, "rb", compression="infer") as file:
        yield file if hasattr(file, "readline") else io.BufferedReader(file)
