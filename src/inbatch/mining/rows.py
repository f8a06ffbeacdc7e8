"""The rows of a training set with their mined negatives, as files that `data.train` reads.

Rows keep their order, positives and keys; all rows of a query have the same negatives. Shards are cut from
the rows of one source, and appear whole.

Shape letters: r rows of a shard, q queries, M negatives, P positives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from inbatch.data.ragged import RaggedValues
from inbatch.data.sources.lists import texts_of
from inbatch.errors import ConfigError
from inbatch.files import replaced_file
from inbatch.mining.blocks import Block
from inbatch.mining.identity import ROWS
from inbatch.mining.training_set import TrainingSet


@dataclass(frozen=True, slots=True, kw_only=True)
class RowForm:
    """How rows are written.

    output: "list" (a row for each row, with lists), "triplet" (one for each positive and negative) or
        "n-tuple" (one for each positive, with a column for each negative).
    scores: whose scores are kept: "model", "guide" or "none".
    files: "parquet" or "jsonl".
    num_negatives: most negatives of a row.
    min_negatives: rows with fewer are left out.
    shard_rows: rows of the training set behind one file.
    """

    output: Literal["list", "triplet", "n-tuple"]
    scores: Literal["model", "guide", "none"]
    files: Literal["parquet", "jsonl"]
    num_negatives: int
    min_negatives: int
    shard_rows: int


class Shard(NamedTuple):
    """The rows ``start .. stop - 1`` of a source, and the number of its first row among those of all
    sources."""

    number: int
    source: int
    start: int
    stop: int
    first: int


@dataclass(frozen=True, slots=True)
class Mined:
    """The negatives of all queries.

    negatives: documents, best first, q rows.
    scores: of the negatives, float32 [M].
    positive_scores: of `TrainingSet.positives`, float32 [P].
    """

    negatives: RaggedValues
    scores: np.ndarray
    positive_scores: np.ndarray


def join_blocks(blocks: Sequence[Block], scores: str) -> Mined:
    """The negatives of all blocks, with the scores of the model or the guide."""
    counts, *values = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in (
            *("counts", "negatives"),
            *(("guide", "positive_guide") if scores == "guide" else ("scores", "positive_scores")),
        )
    )
    negatives = RaggedValues(values[0], np.concatenate([[0], np.cumsum(counts)]))
    return Mined(negatives, values[1], values[2])


def shards_of(training: TrainingSet, shard_rows: int) -> list[Shard]:
    """The shards of all sources, in order."""
    found: list[Shard] = []
    first = 0
    for number, source in enumerate(training.sources):
        for start in range(0, source.num_rows, shard_rows):
            stop = min(start + shard_rows, source.num_rows)
            found.append(Shard(len(found), number, start, stop, first + start))
        first += source.num_rows
    return found


def shard_path(folder: Path, number: int, form: RowForm) -> Path:
    """Where a shard is."""
    return folder / f"mined-{number:05}.{form.files}"


def check_files(folder: Path, training: TrainingSet, form: RowForm) -> None:
    """Refuse files that are named as those of rows and are none of this mining.

    Raises:
        ConfigError: there is one, which a training on all files of rows would read.
    """
    own = {shard_path(folder, shard.number, form) for shard in shards_of(training, form.shard_rows)}
    foreign = sorted(set(folder.glob(ROWS)) - own)
    if foreign:
        problem = "is none of the files that this mining writes"
        raise ConfigError(str(foreign[0]), problem, "move it elsewhere, or set another output_dir")


def write_shard(
    folder: Path, shard: Shard, training: TrainingSet, mined: Mined, form: RowForm
) -> None:
    """Write the rows of a shard, unless they are there; no file where there are none."""
    if shard_path(folder, shard.number, form).is_file():
        return
    table = shard_table(shard, training, mined, form)
    if table.num_rows == 0:
        return
    with replaced_file(shard_path(folder, shard.number, form)) as file:
        if form.files == "parquet":
            pq.write_table(table, file, compression="zstd")
        else:
            _write_lines(table, file)


def shard_table(shard: Shard, training: TrainingSet, mined: Mined, form: RowForm) -> pa.Table:
    """The rows of a shard."""
    source = training.sources[shard.source]
    rows = np.arange(shard.first, shard.first + shard.stop - shard.start)
    query = training.query_of_row[rows]
    kept = np.flatnonzero(mined.negatives.lengths[query] >= form.min_negatives)
    given = source.table(shard.start, shard.stop).take(pa.array(kept)).combine_chunks()
    rows, query = rows[kept], query[kept]
    positives = training.row_positives.take(rows)
    places, offsets = mined.negatives.places(query)
    numbers = mined.negatives.values[places]
    distinct, inverse = np.unique(numbers, return_inverse=True)
    texts = pa.array(training.documents.take(distinct), pa.large_string()).take(pa.array(inverse))
    columns: dict[str, Any] = {
        "query": _texts(given, source.roles.query),
        "positive": _list(_texts(given, source.roles.positive), positives.offsets),
        "negative": _list(texts, offsets),
    }
    if form.scores != "none":
        of_positives = mined.positive_scores[_places_of(training, query, positives)]
        columns["positive_score"] = _list(pa.array(of_positives), positives.offsets)
        columns["negative_score"] = _list(pa.array(mined.scores[places]), offsets)
    if source.roles.key is not None:
        columns["key"] = given.column(source.roles.key).combine_chunks()
    table = pa.table(columns)
    if form.output == "list":
        return table
    table = _exploded(table, ("positive", "positive_score"))
    if form.output == "triplet":
        return _exploded(table, ("negative", "negative_score"))
    return _in_columns(table, form.num_negatives)


def _texts(table: pa.Table, name: str) -> pa.Array:
    """All texts of a column, those of lists one behind another."""
    chunk = table.column(name).combine_chunks()
    return texts_of(chunk).values.cast(pa.large_string())


def _list(values: pa.Array, offsets: np.ndarray) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(offsets.astype(np.int64)), values)


def _places_of(training: TrainingSet, query: np.ndarray, positives: RaggedValues) -> np.ndarray:
    """Place of each positive of some rows among those of all queries."""
    of_all = training.positives
    distinct, inverse = np.unique(query, return_inverse=True)
    places, offsets = of_all.places(distinct)
    size = len(training.documents)
    known = np.repeat(np.arange(len(distinct)), np.diff(offsets)) * size + of_all.values[places]
    wanted = np.repeat(inverse, positives.lengths) * size + positives.values
    return np.asarray(places[np.searchsorted(known, wanted)])


def _exploded(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """A row for each value of lists of equal lengths; rows with empty lists go."""
    lists = [name for name in names if name in table.column_names]
    lengths = texts_of(table.column(lists[0]).combine_chunks()).counts
    owner = pa.array(np.repeat(np.arange(table.num_rows), lengths))
    columns = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        columns[name] = column.flatten() if name in lists else column.take(owner)
    return pa.table(columns)


def _in_columns(table: pa.Table, num_negatives: int) -> pa.Table:
    """A column for each negative; every row has as many."""
    column = table.column("negative").combine_chunks()
    texts = column.flatten()
    place = table.column_names.index("negative")
    table = table.drop_columns("negative")
    for number in reversed(range(num_negatives)):
        own = texts.take(pa.array(np.arange(number, len(texts), num_negatives)))
        table = table.add_column(place, f"negative_{number + 1}", own)
    return table


def _write_lines(table: pa.Table, file: IO[bytes]) -> None:
    for line in _lines(table):
        file.write(line.encode() + b"\n")


def _lines(table: pa.Table) -> Iterator[str]:
    for batch in table.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            yield json.dumps(row, ensure_ascii=False)
