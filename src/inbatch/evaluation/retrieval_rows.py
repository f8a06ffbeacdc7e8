"""Rows of queries, positives and negatives, in columns or lists -> retrieval among all of their texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.source import Source
from inbatch.errors import ConfigError
from inbatch.evaluation.retrieval_data import (
    RetrievalData,
    retrieval_data_of_pairs,
    retrieval_data_of_texts,
)
from inbatch.evaluation.rows import RowSource, load_source


def retrieval_data_of_rows(
    path: RowSource, *, columns: Mapping[str, object] | None, limit: int | None, field: str
) -> RetrievalData:
    """Search each distinct query's positives among all distinct documents of the rows.

    Args:
        path, columns, field: see `rows.read_texts`; rows may have lists of documents.
        limit: see `make_retrieval_data`.

    Raises:
        ConfigError: see `rows.load_source`; no grade is above 0; a prompt for documents.
    """
    source = load_source(path, columns=columns, limit=None, field=field)
    prompt, notes = query_prompt(source)
    if source.ragged is None:
        texts, labels = source.read(np.arange(source.num_rows))
        data = retrieval_data_of_pairs(texts, labels, limit=limit, field=field)
    else:
        rows = source.ragged.read(np.arange(source.num_rows))
        documents = rows.documents
        pairs = _pairs(rows.queries, documents, source, rows.picks.counts, rows.picks.positives)
        data = retrieval_data_of_texts(rows.queries, documents, pairs, limit=limit, field=field)
    return replace(data, query_prompt=prompt, notes=(*data.notes, *notes))


def query_prompt(source: Source) -> tuple[str | None, tuple[str, ...]]:
    """The prompt that rows bring for their queries, None for none, and a note that says so.

    Raises:
        ConfigError: they bring one for documents.
    """
    if {*source.prompts} - {"query", source.roles.query}:
        raise ConfigError(
            f"{path_key(source.field)}.prompts",
            "is for queries alone here",
            "set the encoder's prompt of documents instead",
            value=source.prompts,
        )
    if not source.prompts:
        return None, ()
    prompt = source.column_prompts(None)[0]
    whose = "records" if source.roles.prompt else "set"
    return prompt, (f"queries behind the prompt {prompt!r} of the {whose}",)


def _pairs(
    queries: list[str],
    documents: list[str],
    source: Source,
    counts: np.ndarray,
    positives: np.ndarray,
) -> Iterator[tuple[str, str, float]]:
    """Each query with each of its positives, which come first among the documents of a row."""
    labels = source.labels()
    grades = np.ones(len(queries)) if labels is None else labels
    starts = np.cumsum(counts) - counts
    for query, start, count, grade in zip(queries, starts, positives, grades.tolist()):
        for document in documents[start : start + count]:
            yield query, document, grade
