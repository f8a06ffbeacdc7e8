"""A file with one JSON object a line, or one list of objects -> tables with the columns in use.

Arrow parses a block at a time. What it refuses, or counts differently, is read line by line in Python,
which names the line, or reads it. Columns that are not in use are never looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple, final

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json

from inbatch.data.sources.diagnose import Fault, FaultyFileError, MixedColumnError, not_utf8
from inbatch.data.sources.dropped import BAD_ROW, LINE, mark, place_in_file
from inbatch.data.sources.json_types import describe, fits, name_kind
from inbatch.data.sources.mixed_columns import Mixed

BLOCK_BYTES = 16 << 20
HEAD_BYTES = 10 << 20  # in which the names of the columns must turn up
_BOM = b"\xef\xbb\xbf"
_TWICE = object()  # key for the names that an object has twice
_DROP = "leave such rows out with «on_bad_row=drop»"


@final
class JsonReader:
    """Reads one file, once.

    Args:
        file: Its bytes, at the beginning.
        path: Its name, for messages.
        drop: Keep rows that cannot be read as rows without texts, whose reason stands in the column
            `BAD_ROW`; else they are refused.
        mixed: Columns that may hold texts and lists of them.
    """

    def __init__(
        self, file: IO[bytes], *, path: str, drop: bool = False, mixed: Mixed | None = None
    ) -> None:
        self._file, self._path, self._drop = file, path, drop
        self._mixed = mixed or Mixed()

    def names(self) -> list[str]:
        """Names of the columns, in the order in which they turn up in the first 10 MiB.

        Raises:
            FaultyFileError: A line there that is no object.
        """
        found: dict[str, None] = {}
        bad: _Bad | None = None
        for line, block in self._blocks(HEAD_BYTES):
            for _, row in self._records(line, block, keep=True):
                if isinstance(row, _Bad):
                    bad = bad or row
                else:
                    found |= dict.fromkeys(name for name in row if name is not _TWICE)
            if bad is not None and not (self._drop and found):
                raise FaultyFileError(self._path, bad.fault)
            if found:
                break
        return list(found)

    def values(self) -> Iterator[dict[Any, Any]]:
        """The objects, as Python reads them.

        Raises:
            FaultyFileError: A line that is no object.
        """
        for line, block in self._blocks(BLOCK_BYTES):
            yield from (row for _, row in self._records(line, block))

    def tables(self, schema: pa.Schema, *, lines: bool = False) -> Iterator[pa.Table]:
        """The rows, with these columns; one that a row lacks is null there.

        On request the column `LINE` stands beside them, null for the rows of a list.

        Raises:
            FaultyFileError: A line that is no object, or a value of another type.
            MixedColumnError: A column holds texts and lists that was not known to.
        """
        for line, block in self._blocks(BLOCK_BYTES):
            table = None if _is_list(line, block) else _parse(block, schema)
            if table is None:
                yield self._table_of(line, block, schema, lines=lines)
                continue
            if self._drop:
                table = table.append_column(BAD_ROW, pa.nulls(table.num_rows, pa.string()))
            if lines:
                table = table.append_column(LINE, pa.array(range(line, line + table.num_rows)))
            for column in self._mixed.marks():
                table = table.append_column(column, pa.array(np.zeros(table.num_rows, bool)))
            yield table

    def _blocks(self, size: int) -> Iterator[tuple[int, bytes]]:
        """Blocks of whole lines, each with the number of its first; a list of objects is one block."""
        line = 1
        while block := self._file.read(size) + self._file.readline():
            if line == 1:
                block = block.removeprefix(_BOM)
                if _is_list(line, block):
                    block += self._file.read()
            yield line, block
            line += block.count(b"\n")

    def _table_of(self, line: int, block: bytes, schema: pa.Schema, *, lines: bool) -> pa.Table:
        """The rows of a block, read one by one."""
        rows: list[dict[Any, Any]] = []
        marks: list[str | None] = []
        places: list[int | None] = []
        were_texts: dict[str, list[bool]] = {name: [] for name in self._mixed.do}
        for place, row in self._records(line, block, keep=True):
            for name, were in were_texts.items():
                value = None if isinstance(row, _Bad) else row.get(name)
                were.append(value is not None and not isinstance(value, list))
                if were[-1]:
                    row = {**row, name: [value]}
            bad = row if isinstance(row, _Bad) else _misfit(row, schema, place)
            if bad is not None and not isinstance(row, _Bad):
                self._refuse_mixed(row, schema, bad)
            if bad is not None and not self._drop:
                raise FaultyFileError(self._path, bad.fault)
            name = PurePosixPath(self._path).name
            marks.append(None if bad is None else mark(f"{name}, {place}", bad.reason))
            rows.append({} if isinstance(row, _Bad) or bad is not None else row)
            places.append(int(place.removeprefix("line ")) if place.startswith("line ") else None)
        arrays = [pa.array([row.get(f.name) for row in rows], f.type) for f in schema]
        table = pa.table(arrays, schema=schema)
        if self._drop:
            table = table.append_column(BAD_ROW, pa.array(marks, pa.string()))
        if lines:
            table = table.append_column(LINE, pa.array(places, pa.int64()))
        for column, were in zip(self._mixed.marks(), were_texts.values()):
            kept = [text and reason is None for text, reason in zip(were, marks)]
            table = table.append_column(column, pa.array(kept, pa.bool_()))
        return table

    def _refuse_mixed(self, row: dict[Any, Any], schema: pa.Schema, bad: _Bad) -> None:
        for column in schema:
            if self._mixed.is_new(column.name, row.get(column.name), column.type):
                raise MixedColumnError(self._path, bad.fault, column.name)

    def _records(self, line: int, block: bytes, *, keep: bool = False) -> Iterator[tuple[str, Any]]:
        """Place and object of each row; with `keep` also rows that are none, as what is bad about them."""
        for place, row in _list_items(block) if _is_list(line, block) else _lines(line, block):
            if not isinstance(row, _Bad) or keep:
                yield place, row
            elif not self._drop:
                raise FaultyFileError(self._path, row.fault)


class _Bad(NamedTuple):
    """What is wrong with a row: as an error, and as a reason to leave it out."""

    fault: Fault
    reason: str


def _parse(block: bytes, schema: pa.Schema) -> pa.Table | None:
    """The rows of a block; None where Arrow refuses it, or does not find one row in each line."""
    try:
        table = pa_json.read_json(
            pa.BufferReader(block),
            read_options=pa_json.ReadOptions(block_size=len(block) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore"
            ),
        )
        table.validate(full=True)  # that texts are UTF-8
    except pa.ArrowInvalid:
        return None
    num_lines = block.count(b"\n") + (not block.endswith(b"\n"))
    return table.select(schema.names) if table.num_rows == num_lines else None


def _is_list(line: int, block: bytes) -> bool:
    """Tell whether a file is one list of objects, from its first block."""
    return line == 1 and block.lstrip()[:1] == b"["


def _list_items(block: bytes) -> Iterator[tuple[str, Any]]:
    try:
        items = _loads(block)
    except UnicodeDecodeError as error:
        line = block.count(b"\n", 0, error.start) + 1
        yield f"line {line}", _Bad(not_utf8(line, block, sample=block), "that are not UTF-8")
        return
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # the list was one line of several
            yield "line 1", _no_object("line 1")
        else:
            yield f"line {error.lineno}", _broken(error, error.lineno)
        return
    for number, item in enumerate(items):
        place = place_in_file(number)
        yield place, item if isinstance(item, dict) else _no_object(place)


def _lines(line: int, block: bytes) -> Iterator[tuple[str, Any]]:
    for number, text in enumerate(block.split(b"\n"), line):
        if not text.strip(b"\0 \t\r"):
            continue
        place = f"line {number}"
        try:
            if b"\0" in text:
                raise UnicodeDecodeError("utf-8", text, 0, 1, "a NUL byte")
            for row in _objects(text.decode("utf-8")):
                yield place, row if isinstance(row, dict) else _no_object(place)
        except UnicodeDecodeError:
            yield place, _Bad(not_utf8(number, text, sample=block), "that are not UTF-8")
        except json.JSONDecodeError as error:
            yield place, _broken(error, number)
        except RecursionError:
            yield place, _no_object(place)


def _objects(line: str) -> list[Any]:
    """The values of a line, of which Arrow too takes several."""
    found, at = [], 0
    while at < len(line):
        value, at = _DECODER.raw_decode(line, at + len(line[at:]) - len(line[at:].lstrip()))
        found.append(value)
        at += len(line[at:]) - len(line[at:].lstrip())
    return found


def _loads(text: bytes) -> Any:
    return json.loads(text.decode("utf-8"), object_pairs_hook=_object)


def _object(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        row[_TWICE] = {name for name, count in counts.items() if count > 1}
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _misfit(row: dict[Any, Any], schema: pa.Schema, place: str) -> _Bad | None:
    """What is wrong with the values of a row."""
    for column in schema:
        name, value = column.name, row.get(column.name)
        if name in row.get(_TWICE, ()):
            fault = Fault(f"has '{name}' twice in {place}", f"keep one of them, or {_DROP}")
            return _Bad(fault, f"that have '{name}' twice")
        if not fits(value, column.type):
            kind = name_kind(column.type)
            problem = f"has {describe(value)} in column '{name}', {place}, where others hold {kind}"
            return _Bad(Fault(problem, f"correct it, or {_DROP}"), f"without {kind} in '{name}'")
    return None


def _no_object(place: str) -> _Bad:
    fault = Fault(f"has no object ({{...}}) in {place}", "correct that line")
    return _Bad(fault, "that are no object")


def _broken(error: json.JSONDecodeError, line: int) -> _Bad:
    fix = f"correct it, or {_DROP}"
    if error.doc[error.pos : error.pos + 1].rstrip() == "," and error.pos:
        fix = "remove the commas between the lines"
    problem = f"has a broken line {line} ({error.msg}, column {error.colno})"
    return _Bad(Fault(problem, fix), "that are no JSON")
