"""Pairs of ids -> rows of a query with its positives and negatives, as numbers of texts.

Shape letters: P pairs of a query and a document, R rows.

::

    FOLDER/queries/, FOLDER/corpus/   texts by number (text_index.py)
    FOLDER/rows.arrow                 query, positive, negative: numbers, and scores where there are any
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from inbatch.data.formats.base import Tally
from inbatch.data.formats.id_pairs import PairFile, Pairs
from inbatch.data.sources.dropped import GIVEN_AGAIN, WITHOUT_POSITIVE

QUERIES, CORPUS, ROWS = "queries", "corpus", "rows.arrow"
PAIRS = "pairs.bin"  # while rows are made of them
_BATCH = 1 << 16  # rows of a record batch


class RowCounts(NamedTuple):
    """What became of pairs."""

    used: int
    rows: int
    repeats: int  # of positives, which are one pair where lines repeat them


def write_rows(folder: Path, pairs: PairFile, tally: Tally, *, once: bool = False) -> RowCounts:
    """Write one row for each query that has a positive, in the order of queries; documents as they come.

    A document that is a positive of a query is none of its negatives.

    Args:
        folder: Where the file is written.
        pairs: All of them.
        tally: Counts pairs that are no part of a row.
        once: Whether lines repeat the positives of their query, which then is no matter to count.
    """
    names = ("query", "positive", "negative", "positive_score", "negative_score")
    kinds = [pa.int32()] + [pa.list_(kind) for kind in 2 * [pa.int32()] + 2 * [pa.float32()]]
    schema = pa.schema(zip(names[: 5 if pairs.has_scores else 3], kinds))
    used = rows = repeats = again = lonely = 0
    with (folder / ROWS).open("wb") as file, pa.ipc.new_stream(file, schema) as out:
        for part in pairs.read():
            repeated_P = _repeated(part)
            quiet = int((repeated_P & part.positive).sum()) if once else 0
            has_positive_P = np.isin(part.queries, part.queries[part.positive])
            lonely_P = ~has_positive_P & ~repeated_P
            kept = np.flatnonzero(~repeated_P & ~lonely_P)
            found = _write(out, schema, part, kept)
            repeats, again = repeats + quiet, again + int(repeated_P.sum()) - quiet
            lonely += int(lonely_P.sum())
            used, rows = used + len(kept), rows + found
    for reason, count in ((GIVEN_AGAIN, again), (WITHOUT_POSITIVE, lonely)):
        if count:
            tally.add(reason, lambda: "all files", count)
    return RowCounts(used, rows, repeats)


def _write(
    out: pa.ipc.RecordBatchStreamWriter, schema: pa.Schema, pairs: Pairs, kept: np.ndarray
) -> int:
    """Write the rows of the pairs with these places, which stand in the order of queries; how many."""
    queries_R, starts_R = np.unique(pairs.queries[kept], return_index=True)
    bounds = np.append(starts_R, len(kept))
    values = [pairs.documents] + ([pairs.scores] if len(schema) > 3 else [])
    for first in range(0, len(queries_R), _BATCH):
        rows = queries_R[first : first + _BATCH]
        inside = kept[bounds[first] : bounds[first + len(rows)]]
        columns = [pa.array(rows, pa.int32()), *_lists(pairs, values, inside, rows)]
        out.write_batch(pa.record_batch(columns, schema=schema))
    return len(queries_R)


def _repeated(pairs: Pairs) -> np.ndarray:
    """Mark pairs whose query and document an earlier pair has, or a positive one: bool [P]."""
    order = np.lexsort((~pairs.positive, pairs.documents, pairs.queries))  # stable
    queries, documents = pairs.queries[order], pairs.documents[order]
    repeated_P = np.zeros(len(order), dtype=bool)
    repeated_P[order[1:]] = (queries[1:] == queries[:-1]) & (documents[1:] == documents[:-1])
    return repeated_P


def _lists(
    pairs: Pairs, values: Sequence[np.ndarray], inside: np.ndarray, rows: np.ndarray
) -> list[pa.Array]:
    """Lists of the values of positives, and of those of negatives, of the rows that these pairs are of."""
    lists = []
    for values_P in values:
        for side in (True, False):
            of_side = inside[pairs.positive[inside] == side]
            ends = np.searchsorted(pairs.queries[of_side], rows, side="right")
            offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
            lists.append(pa.ListArray.from_arrays(offsets, pa.array(values_P[of_side])))
    return lists
