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
from inbatch.data.sources.dropped import GIVEN_AGAIN, WITHOUT_POSITIVE

QUERIES, CORPUS, ROWS = "queries", "corpus", "rows.arrow"
_BATCH = 1 << 16  # rows of a record batch


class Pairs(NamedTuple):
    """Documents of queries."""

    queries: np.ndarray  # int32 [P], numbers
    documents: np.ndarray  # int32 [P]
    positive: np.ndarray  # bool [P]
    scores: np.ndarray  # float32 [P], NaN for none


def join_pairs(parts: Sequence[Pairs]) -> Pairs:
    """Pairs one after the other."""
    return Pairs(*(np.concatenate(arrays) for arrays in zip(*parts)))


def write_rows(folder: Path, pairs: Pairs, tally: Tally) -> None:
    """Write one row for each query that has a positive, in the order of queries; documents as they come.

    A document that is a positive of a query is none of its negatives.
    """
    repeated_P = _repeated(pairs)
    has_positive = np.zeros(int(pairs.queries.max(initial=-1)) + 1, dtype=bool)
    has_positive[pairs.queries[pairs.positive]] = True
    lonely_P = ~has_positive[pairs.queries] & ~repeated_P
    kept = np.flatnonzero(~repeated_P & ~lonely_P)
    kept = kept[np.argsort(pairs.queries[kept], kind="stable")]
    queries_R, starts_R = np.unique(pairs.queries[kept], return_index=True)
    bounds = np.append(starts_R, len(kept))
    values = [pairs.documents] + ([] if np.isnan(pairs.scores).any() else [pairs.scores])
    names = ("query", "positive", "negative", "positive_score", "negative_score")
    kinds = [pa.int32()] + [pa.list_(kind) for kind in 2 * [pa.int32()] + 2 * [pa.float32()]]
    schema = pa.schema(zip(names[: 1 + 2 * len(values)], kinds))
    with (folder / ROWS).open("wb") as file, pa.ipc.new_stream(file, schema) as out:
        for first in range(0, len(queries_R), _BATCH):
            rows = queries_R[first : first + _BATCH]
            inside = kept[bounds[first] : bounds[first + len(rows)]]
            columns = [pa.array(rows, pa.int32()), *_lists(pairs, values, inside, rows)]
            out.write_batch(pa.record_batch(columns, schema=schema))
    for reason, marked_P in (
        (GIVEN_AGAIN, repeated_P),
        (WITHOUT_POSITIVE, lonely_P),
    ):
        if count := int(marked_P.sum()):
            tally.add(reason, lambda: "all files", count)


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
