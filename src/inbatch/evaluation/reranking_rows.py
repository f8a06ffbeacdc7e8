"""Rows of queries, positives and negatives -> candidates of each query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from inbatch.errors import ConfigError
from inbatch.evaluation.retrieval_rows import query_prompt
from inbatch.evaluation.rows import RowSource, load_source


@dataclass(frozen=True, slots=True)
class Candidates:
    """Queries with documents of their own.

    queries: texts.
    documents: of each query, the relevant ones first; at least one that is and one that is not.
    num_positives: how many of them are relevant.
    query_prompt: in place of the encoder's.
    notes: what a person should know of the rows.
    """

    queries: list[str]
    documents: list[list[str]]
    num_positives: list[int]
    query_prompt: str | None
    notes: tuple[str, ...]

    def blocks(self, most: int) -> Iterator[tuple[int, int]]:
        """Neighbouring rows with at most so many documents, or one row: first and after the last."""
        first = count = 0
        for row, documents in enumerate(self.documents):
            if count and count + len(documents) > most:
                yield first, row
                first, count = row, 0
            count += len(documents)
        yield first, len(self.documents)


def read_candidates(
    path: RowSource, *, columns: Mapping[str, object] | None, limit: int | None, field: str
) -> Candidates:
    """Read all rows into memory; those without a positive or without a negative are left out.

    Args:
        path, columns, limit, field: see `rows.read_texts`; rows may have lists of documents.

    Raises:
        ConfigError: rows that cannot be read, none that has a negative, or a prompt for documents.
    """
    source = load_source(path, columns=columns, limit=limit, field=field)
    prompt, notes = query_prompt(source)
    num_rows = source.num_rows if limit is None else min(limit, source.num_rows)
    queries: list[str] = []
    documents: list[list[str]] = []
    positives: list[int] = []
    if source.ragged is None:
        texts, _ = source.read(np.arange(num_rows))
        queries, documents = list(texts[0]), [list(row) for row in zip(*texts[1:])]
        positives = [1] * num_rows
    else:
        rows = source.ragged.read(np.arange(num_rows))
        ends = np.cumsum(rows.picks.counts)
        queries = list(rows.queries)
        documents = [
            rows.documents[end - count : end] for end, count in zip(ends, rows.picks.counts)
        ]
        positives = rows.picks.positives.tolist()
    kept = [row for row in range(num_rows) if 0 < positives[row] < len(documents[row])]
    if not kept:
        raise ConfigError(
            field, "has no row with a positive and a negative", "name columns of both, or lists"
        )
    if left_out := num_rows - len(kept):
        notes = (*notes, f"{left_out:,} rows without a positive or without a negative, left out")
    if source.has_labels:
        notes = (*notes, "labels have no effect on reranking")
    return Candidates(
        queries=[queries[row] for row in kept],
        documents=[documents[row] for row in kept],
        num_positives=[positives[row] for row in kept],
        query_prompt=prompt,
        notes=notes,
    )
