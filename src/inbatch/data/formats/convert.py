"""Records -> rows on the disk, once: an Arrow file that all processes map.

::

    CACHE/format-FINGERPRINT/rows.arrow    query, positive, negative, and label and key where there are any
    CACHE/format-FINGERPRINT/left_out.json what was read, and left out, and why
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets.table import MemoryMappedTable

from inbatch.data.formats.base import Row, Tally
from inbatch.data.formats.conversion import Conversion
from inbatch.data.formats.records import Place
from inbatch.data.sources.dropped import (
    Dropped,
    Intake,
    from_json,
    intake_from_json,
)
from inbatch.data.sources.indexed import IndexedRows
from inbatch.data.sources.list_texts import SAMPLE, refuse_lists_of
from inbatch.files import new_folder, one_at_a_time, write_json

ROWS, LEFT_OUT = "rows.arrow", "left_out.json"
_BATCH = 10_000  # rows of a record batch
_LISTS = ("positive", "negative")


class Converted(NamedTuple):
    """The rows, memory-mapped, what was left out, and what was read where that is no rows."""

    table: datasets.Dataset | IndexedRows
    left_out: tuple[Dropped, ...]
    intake: Intake | None


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
        rows = conversion.rows(records(), folder=fresh)
        _write(rows, fresh / ROWS, key=conversion.key)
        _tidy(fresh / ROWS, columns)

    target = write_once(folder, fingerprint, write, conversion.tally)
    table = datasets.Dataset(
        MemoryMappedTable.from_file(str(target / ROWS)), fingerprint=fingerprint
    )
    return Converted(table, *read_left_out(target))


def refuse_list_records(
    records: Iterable[tuple[Place, Any]], conversion: Conversion, *, origin: str, parsed: bool
) -> None:
    """Refuse columns whose texts would be trained on and are lists, in the first records.

    Raises:
        ConfigError: There is one.
    """
    first = list(islice(records, SAMPLE))
    rows = replace(conversion, tally=Tally()).rows(first)
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
                    found = {
                        "dropped": [asdict(each) for each in tally.dropped()],
                        "intake": None if tally.intake is None else asdict(tally.intake),
                    }
                    write_json(fresh / LEFT_OUT, found)
    return target


def read_left_out(folder: Path) -> tuple[tuple[Dropped, ...], Intake | None]:
    """What a finished folder says was left out, and read."""
    found = json.loads((folder / LEFT_OUT).read_text(encoding="utf-8"))
    return from_json(found["dropped"]), intake_from_json(found["intake"])


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
