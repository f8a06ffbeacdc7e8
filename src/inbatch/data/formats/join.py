"""Rows of one query, wherever they are, become one, with the memory of a part of them.

Some rows are grouped in memory. More are written to files by the hash of their query, each file is grouped
for itself, and its groups are written again. Those of all files are merged in the order of their first rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from inbatch.data.formats.base import Row, Tally
from inbatch.data.formats.records import Place
from inbatch.data.hashing import hash_texts
from inbatch.data.sources.dropped import GIVEN_AGAIN, PLACES

IN_MEMORY = 1 << 16  # rows that are grouped without a file
_PARTS = 128  # files
_MERGED = 256  # rows of each file that are in memory while they are merged
_SCHEMA = pa.schema(
    {
        "number": pa.int64(),
        "place": pa.string(),
        "query": pa.string(),
        "positive": pa.list_(pa.string()),
        "negative": pa.list_(pa.string()),
        "key": pa.string(),
    }
)


class Found(NamedTuple):
    """A row, or the rows of one query: the number and the place of the first."""

    number: int
    place: str
    query: str
    positive: Sequence[str]
    negative: Sequence[str]
    key: str | None


class Joined(NamedTuple):
    """A query's documents, each once, and the place of its first row."""

    place: str
    row: Row
    key: str | None


def join_rows(
    rows: Iterable[tuple[Place, Row, Any]], tally: Tally, *, folder: Path | None
) -> Iterator[Joined]:
    """One row for each query, in the order in which they come first; the first key of each counts.

    Args:
        rows: any number of them.
        tally: counts documents that a query has twice.
        folder: where files are, meanwhile; None for that of temporary files.
    """
    found = (
        Found(number, place(), row.query, row.positive, row.negative, key)
        for number, (place, row, key) in enumerate(rows)
    )
    first = list(islice(found, IN_MEMORY))
    groups = _Groups()
    if len(first) < IN_MEMORY:
        joined: Iterable[Found] = groups.of(first)
    else:
        joined = _by_files(chain(first, found), groups, folder)
    del first  # the files hold them
    for each in joined:
        row = Row(each.query, list(each.positive), list(each.negative))
        yield Joined(each.place, row, each.key)
    groups.tell(tally)


class _Groups:
    """Groups rows, and counts what is given again in all of them."""

    def __init__(self) -> None:
        self._repeated = 0
        self._places: list[tuple[int, str]] = []  # the first ones of each call

    def of(self, rows: Iterable[Found]) -> list[Found]:
        """The groups of rows that hold all of their queries."""
        groups: dict[str, tuple[Found, dict[str, None], dict[str, None]]] = {}
        places: list[tuple[int, str]] = []
        for row in rows:
            _, positive, negative = groups.setdefault(row.query, (row, {}, {}))
            before = len(positive) + len(negative)
            positive.update(dict.fromkeys(row.positive))
            negative.update(dict.fromkeys(row.negative))
            given = len(row.positive) + len(row.negative)
            again = before + given - len(positive) - len(negative)
            if again:
                self._repeated += again
                if len(places) < PLACES:
                    places.append((row.number, row.place))
        self._places += places
        return [
            first._replace(positive=[*positive], negative=[*negative])
            for first, positive, negative in groups.values()
        ]

    def tell(self, tally: Tally) -> None:
        """Count what was given again."""
        places = [place for _, place in sorted(self._places)[:PLACES]]
        for number, place in enumerate(places):
            rest = self._repeated - len(places) + 1 if number == len(places) - 1 else 1
            tally.add(GIVEN_AGAIN, place.__str__, rest)


def _by_files(rows: Iterable[Found], groups: _Groups, folder: Path | None) -> Iterator[Found]:
    with TemporaryDirectory(prefix="rows-", dir=folder) as place:
        paths = [Path(place, f"{part}.arrow") for part in range(_PARTS)]
        _spill(rows, paths)
        for path in paths:
            found = groups.of(_read(path))
            with path.open("wb") as file, _writer(file) as out:
                for start in range(0, len(found), _MERGED):
                    out.write_batch(_record_batch(found[start : start + _MERGED]))
        yield from merge(*map(_read, paths), key=itemgetter(0))


def _spill(rows: Iterable[Found], paths: Sequence[Path]) -> None:
    """Write each row to the file that the hash of its query chooses."""
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        outs = [stack.enter_context(_writer(file)) for file in files]
        rows = iter(rows)
        while block := list(islice(rows, IN_MEMORY)):
            parts_n = hash_texts([row.query for row in block]) % np.uint64(len(paths))
            order = np.argsort(parts_n, kind="stable")
            bounds = np.searchsorted(parts_n[order], np.arange(len(paths) + 1)).tolist()
            batch = _record_batch(block).take(pa.array(order))
            for out, start, stop in zip(outs, bounds, bounds[1:]):
                out.write_batch(batch.slice(start, stop - start))


def _writer(file: Any) -> pa.ipc.RecordBatchStreamWriter:
    return pa.ipc.new_stream(file, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4"))


def _record_batch(rows: Sequence[Found]) -> pa.RecordBatch:
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows), _SCHEMA.types)]
    return pa.record_batch(columns, schema=_SCHEMA)


def _read(path: Path) -> Iterator[Found]:
    with pa.OSFile(str(path)) as file:
        for batch in pa.ipc.open_stream(file):
            yield from map(Found, *(column.to_pylist() for column in batch.columns))
