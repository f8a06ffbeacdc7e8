"""Records -> rows on the disk, once: an Arrow file that all processes map.

::

    CACHE/format-FINGERPRINT/rows.arrow    query, positive, negative, and label and key where there are any
    CACHE/format-FINGERPRINT/left_out.json what was left out, and why
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets.table import MemoryMappedTable

from inbatch.data.formats.base import BadRecordError, RecordFormat, Row, Tally
from inbatch.data.formats.records import Place
from inbatch.data.sources.config_keys import path_key, to_set
from inbatch.data.sources.dropped import EMPTY_BESIDE_OTHERS, Dropped, from_json
from inbatch.data.sources.list_texts import SAMPLE, refuse_lists_of
from inbatch.errors import ConfigError
from inbatch.files import new_folder, one_at_a_time, write_json

ROWS, LEFT_OUT = "rows.arrow", "left_out.json"
_BATCH = 10_000  # rows of a record batch
_LISTS = ("positive", "negative")
_NO_POSITIVE = "without a positive"
_NO_ROW = "that no row can be made of"


class Converted(NamedTuple):
    """The rows, memory-mapped, and what was left out."""

    table: datasets.Dataset
    left_out: tuple[Dropped, ...]


@dataclass
class Conversion:
    """How the records of one source become rows.

    format: of the records.
    key: the field of the records that holds their key, see `columns.find_roles`.
    on_empty: "drop" leaves out empty texts, and records that have no query or positive then.
    on_bad_row: "drop" leaves out records that the format does not allow.
    field: configuration key of the source, for messages.
    labels: whether a record may have a label, for which a streamed source has no column where its first
        records have none.
    """

    format: RecordFormat
    key: str | None = None
    on_empty: Literal["error", "drop"] = "error"
    on_bad_row: Literal["error", "drop"] = "error"
    field: str = "data.train"
    labels: bool = True
    tally: Tally = dataclasses.field(default_factory=Tally)

    def describe(self) -> str:
        """What the rows depend on besides the files."""
        return f"{self.format!r}:{self.key}:{self.on_empty}:{self.on_bad_row}"

    def rows(self, records: Iterable[tuple[Place, Any]]) -> Iterator[tuple[Row, Any]]:
        """Rows and their keys.

        Raises:
            ConfigError: A record that cannot be used, with its file and line.
        """
        found = self._each(records)
        for place, row, key in self._joined(found) if self.format.joined else found:
            if row.positive:
                yield row, key
            elif self.format.joined:
                self.tally.add("of queries without a positive", place, len(row.negative))
            else:
                error = BadRecordError("has no positive", "give one", reason=_NO_POSITIVE)
                self._refuse(error, place)

    def _each(self, records: Iterable[tuple[Place, Any]]) -> Iterator[tuple[Place, Row, Any]]:
        for place, record in records:
            try:
                if isinstance(record, BadRecordError):
                    raise record
                row = self.format.row(record)
                if isinstance(row, str):
                    self.tally.add(row, place)
                    continue
                key = _key_of(record, self.key)
            except BadRecordError as error:
                self._refuse(error, place)
                continue
            if row.label is not None and not self.labels:
                problem = "has a label, and the first records of the source have none,"
                fix = f"label all or none, or remove {self.field}.streaming"
                raise self._error(BadRecordError(problem, fix), place)
            if all(map(str.strip, (row.query, *row.positive, *row.negative))):
                yield place, row, key
            elif (shorter := self._without_empty(row, place)) is not None:
                yield place, shorter, key

    def _without_empty(self, row: Row, place: Place) -> Row | None:
        """The row without its empty texts; None where the query or all positives are empty."""
        if self.on_empty == "error":
            fix = f"fill it, or set {to_set(self.field, 'on_empty=drop')}"
            raise self._error(BadRecordError("has an empty text", fix), place)
        positive, negative = (
            [text for text in texts if text.strip()] for texts in (row.positive, row.negative)
        )
        if row.query.strip() and (positive or not row.positive):
            self.tally.add(EMPTY_BESIDE_OTHERS, place)
            return row._replace(positive=positive, negative=negative)
        self.tally.add("with an empty text", place)
        return None

    def _joined(self, found: Iterable[tuple[Place, Row, Any]]) -> Iterator[tuple[Place, Row, Any]]:
        groups: dict[str, tuple[Place, Row, Any]] = {}
        for place, row, key in found:
            _, group, _ = groups.setdefault(row.query, (place, Row(row.query, [], []), key))
            for own, further in ((group.positive, row.positive), (group.negative, row.negative)):
                len_before = len(own)
                own.extend(text for text in further if text not in own)
                if len(own) < len_before + len(further):
                    self.tally.add("given a second time", place)
        yield from groups.values()

    def _refuse(self, error: BadRecordError, place: Place) -> None:
        if self.on_bad_row == "error":
            raise self._error(error, place)
        if error.reason:
            self.tally.add(error.reason, place)
        else:
            self.tally.add(_NO_ROW, lambda: f"{place()}, which {error.problem}")

    def _error(self, error: BadRecordError, place: Place) -> ConfigError:
        path, _, line = place().rpartition(", ")
        problem = f"{error.problem} in {line}"
        return ConfigError(path_key(self.field), problem, error.fix, value=path)


def convert(
    conversion: Conversion,
    records: Callable[[], Iterable[tuple[Place, Any]]],
    *,
    folder: Path,
    fingerprint: str,
    columns: Collection[str] | None = None,
) -> Converted:
    """The rows of some records, from the disk where they were converted before.

    Args:
        conversion: How.
        records: Gives the records, if they are needed.
        folder: Where conversions are kept.
        fingerprint: Of the records.
        columns: The columns of the table, of which positives and negatives are lists. None: those that have a
            value; positives or negatives of which every row has one are no lists.

    Raises:
        ConfigError: A record that cannot be used, with its file and line.
    """

    def write(fresh: Path) -> None:
        _write(conversion.rows(records()), fresh / ROWS, key=conversion.key)
        _tidy(fresh / ROWS, columns)

    target = write_once(folder, fingerprint, write, conversion.tally)
    table = datasets.Dataset(
        MemoryMappedTable.from_file(str(target / ROWS)), fingerprint=fingerprint
    )
    return Converted(table, read_left_out(target))


def refuse_list_records(
    records: Iterable[tuple[Place, Any]], conversion: Conversion, *, origin: str, parsed: bool
) -> None:
    """Refuse columns whose texts would be trained on and are lists, in the first records.

    Raises:
        ConfigError: There is one.
    """
    first = list(islice(records, SAMPLE))
    rows = dataclasses.replace(conversion, tally=Tally()).rows(first)
    used = {text for row, _ in rows for text in (row.query, *row.positive, *row.negative)}
    named = [record for _, record in first if isinstance(record, Mapping)]
    for name in dict.fromkeys(name for record in named for name in record):
        texts = [text for record in named if isinstance(text := record.get(name), str)]
        if not used.isdisjoint(texts):
            refuse_lists_of(texts, name, origin=origin, parsed=parsed, field=conversion.field)


def write_once(folder: Path, fingerprint: str, write: Callable[[Path], None], tally: Tally) -> Path:
    """The folder of a conversion, written by the first process that needs it; others wait for it.

    Args:
        folder: Where conversions are kept.
        fingerprint: Of what it is made from.
        write: Fills a folder.
        tally: Counts meanwhile what is left out.
    """
    target = folder / f"format-{fingerprint}"
    if not target.is_dir():
        with one_at_a_time(folder / f".format-{fingerprint}.lock"):
            if not target.is_dir():
                with new_folder(target) as fresh:
                    write(fresh)
                    write_json(fresh / LEFT_OUT, [asdict(each) for each in tally.dropped()])
    return target


def read_left_out(folder: Path) -> tuple[Dropped, ...]:
    """What a finished folder says was left out."""
    return from_json(json.loads((folder / LEFT_OUT).read_text(encoding="utf-8")))


def _key_of(record: Any, name: str | None) -> Any:
    if name is None:
        return None
    key = record.get(name) if isinstance(record, Mapping) else None
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise BadRecordError(f"has no text or whole number as its key '{name}'", "give one")
    return str(key)


def _write(rows: Iterator[tuple[Row, Any]], path: Path, *, key: str | None) -> None:
    schema = pa.schema(
        {
            "query": pa.string(),
            **{name: pa.list_(pa.string()) for name in _LISTS},
            "label": pa.float64(),
            **({} if key is None else {key: pa.string()}),
        }
    )
    with path.open("wb") as file, pa.ipc.new_stream(file, schema) as out:
        while batch := list(islice(rows, _BATCH)):
            columns = [[row[place] for row, _ in batch] for place in range(len(Row._fields))]
            columns += [] if key is None else [[value for _, value in batch]]
            arrays = [pa.array(values, kind) for values, kind in zip(columns, schema.types)]
            out.write_batch(pa.record_batch(arrays, schema=schema))


def _tidy(path: Path, columns: Collection[str] | None) -> None:
    """Leave out columns that are not wanted, and lists where each row has one text."""
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_stream(file).read_all()
        if table.num_rows == 0:
            return
        names = [
            name
            for name in table.column_names
            if (name in columns if columns is not None else _has_value(table.column(name)))
        ]
        single = [
            name
            for name in names
            if name in _LISTS and columns is None and _all_have_one(table.column(name))
        ]
        if not single and names == table.column_names:
            return
        schema = pa.schema(
            {
                name: pa.string() if name in single else table.schema.field(name).type
                for name in names
            }
        )
        with path.with_suffix(".tidy").open("wb") as file, pa.ipc.new_stream(file, schema) as out:
            for batch in table.select(names).to_batches():
                arrays = [
                    column.flatten() if name in single else column
                    for name, column in zip(names, batch.columns)
                ]
                out.write_batch(pa.record_batch(arrays, schema=schema))
    path.with_suffix(".tidy").replace(path)


def _has_value(column: pa.ChunkedArray) -> bool:
    if pa.types.is_list(column.type):
        return any(len(chunk.flatten()) for chunk in column.chunks)
    return column.null_count < len(column)


def _all_have_one(column: pa.ChunkedArray) -> bool:
    return all(pc.all(pc.equal(pc.list_value_length(chunk), 1)).as_py() for chunk in column.chunks)
