"""What is known of a training set before anything is mined: its queries, its documents, and which match.

Documents are the distinct texts that may become negatives: those of the corpus, where there is one, then the
positives and the negatives of the rows that are not among them.

Shape letters: R rows of all sources, q distinct queries, n distinct documents, K candidates, Q queries of a
block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inbatch.data.ragged import RaggedValues
from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.load import Source
from inbatch.errors import ConfigError
from inbatch.guide.missing import SourceColumn
from inbatch.mining.corpus import CorpusColumn
from inbatch.mining.distinct import DistinctTexts
from inbatch.mining.filters import is_among, pairs_among

_MOST_KNOWN = 1024  # documents by which the search goes deeper, for those that are known to match


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of queries and of documents, as numbers."""

    of_queries: RaggedValues  # q rows
    of_documents: RaggedValues  # n rows

    def shared(self, start: int, stop: int, documents_QK: np.ndarray) -> np.ndarray:
        """Whether each document has a key of its query, bool [Q, K], for the queries ``start .. stop -
        1``."""
        of_queries = self.of_queries.take(np.arange(start, stop))
        there = documents_QK >= 0
        keys, offsets = self.of_documents.take(documents_QK[there])
        lengths = np.diff(offsets)
        out = np.zeros(documents_QK.shape, dtype=bool)
        if len(keys):
            row = np.repeat(np.nonzero(there)[0], lengths)
            hit = pairs_among(row, keys, of_queries)
            found = np.zeros(len(lengths), dtype=bool)
            found[np.repeat(np.arange(len(lengths)), lengths)[hit]] = True
            out[there] = found
        return out

    def num_documents(self) -> np.ndarray:
        """Documents that share a key with each query, one that shares two counted twice, int64 [q]."""
        of_key = np.bincount(self.of_documents.values)
        room = max(len(of_key), int(self.of_queries.values.max(initial=-1)) + 1)
        counts = np.pad(of_key, (0, room - len(of_key)))[self.of_queries.values]
        total = np.concatenate([[0], np.cumsum(counts)])
        return np.asarray(total[self.of_queries.offsets[1:]] - total[self.of_queries.offsets[:-1]])


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Rows as numbers of queries and documents.

    sources: where the rows are.
    queries, documents: distinct texts.
    query_of_row: int64 [R].
    row_positives: documents that are positives of each row, R rows.
    positives: distinct documents that are positives of each query in any of its rows, q rows.
    same_text: document whose text is that of each query, int64 [q], -1 for none.
    keys: None where no row has a key.
    """

    sources: tuple[Source, ...]
    queries: DistinctTexts
    documents: DistinctTexts
    query_of_row: np.ndarray
    row_positives: RaggedValues
    positives: RaggedValues
    same_text: np.ndarray
    keys: Keys | None

    def most_positives(self) -> int:
        """Positives of the query that has most."""
        return int(self.positives.lengths.max())

    def most_known(self) -> int:
        """Documents that are known to match the query that has most of them, 1,024 at most."""
        known = self.positives.lengths + (self.same_text >= 0)
        known -= is_among(self.same_text[:, None], self.positives)[:, 0]
        if self.keys is not None:
            known = np.maximum(known, self.keys.num_documents() + 1)
        return min(int(known.max()), _MOST_KNOWN)


def read_training_set(sources: Sequence[Source], corpus: CorpusColumn | None) -> TrainingSet:
    """Number the texts of all rows; 60 bytes a text at the peak.

    Raises:
        ConfigError: rows that are streamed, or that have labels.
    """
    for source in sources:
        _check(source)
    queries = DistinctTexts([SourceColumn(source, 0) for source in sources])
    columns = [column for source in sources for column in _document_columns(source)]
    documents = DistinctTexts([*([] if corpus is None else [corpus]), *columns])
    query_of_row = np.concatenate([_numbers(queries, SourceColumn(s, 0)) for s in sources])
    per_row = [_positives(documents, source) for source in sources]
    row_positives = RaggedValues(
        np.concatenate([values for values, _ in per_row]),
        np.concatenate([[0], np.cumsum(np.concatenate([lengths for _, lengths in per_row]))]),
    )
    owner = np.repeat(query_of_row, row_positives.lengths)
    positives = _grouped(owner, row_positives.values, len(queries))
    same_text = documents.numbers_of(queries.hashes)
    found = TrainingSet(
        sources=tuple(sources),
        queries=queries,
        documents=documents,
        query_of_row=query_of_row,
        row_positives=row_positives,
        positives=positives,
        same_text=same_text,
        keys=_keys(sources, corpus, query_of_row, row_positives, same_text, documents),
    )
    if len(documents) <= int(positives.lengths.min()):
        raise ConfigError(
            "data.train",
            "has no document that is not a positive",
            "name a corpus, as mine.corpus=FILE",
        )
    return found


def _check(source: Source) -> None:
    if source.streamed is not None:
        raise ConfigError(
            f"{source.field}.streaming",
            "leaves no row to be read by number",
            "remove it",
            value=True,
        )
    if source.has_labels:
        raise ConfigError(
            path_key(source.field),
            f"has labels ({source.roles.label}), and mining takes each positive for a match",
            "keep the rows that match, and name their columns with data.columns.query and .positive",
            value=source.origin,
        )


def _document_columns(source: Source) -> list[SourceColumn]:
    """Columns of positives and negatives; of rows with lists these are two."""
    last = 3 if source.is_ragged else len(source.columns)
    return [SourceColumn(source, number) for number in range(1, last)]


def _numbers(texts: DistinctTexts, column: SourceColumn) -> np.ndarray:
    return np.concatenate([texts.numbers_of(hashes) for hashes, _ in column.blocks()])


def _positives(documents: DistinctTexts, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Documents that are positives, row by row, and how many each row has."""
    column = SourceColumn(source, 1)
    lengths = np.ones(source.num_rows, np.int64)
    if source.ragged is not None:
        lengths = source.ragged.positive_counts().astype(np.int64)
    return _numbers(documents, column), lengths


def _keys(
    sources: Sequence[Source],
    corpus: CorpusColumn | None,
    query_of_row: np.ndarray,
    row_positives: RaggedValues,
    same_text: np.ndarray,
    documents: DistinctTexts,
) -> Keys | None:
    """Keys of queries, of the documents that are a positive or the query of a row, and those of a corpus."""
    hashes = [source.keys() for source in sources]
    has_R = np.concatenate([np.full(s.num_rows, h is not None) for s, h in zip(sources, hashes)])
    if not has_R.any():
        return None
    key_R = np.concatenate(
        [np.zeros(s.num_rows, np.uint64) if h is None else h for s, h in zip(sources, hashes)]
    )
    positive_keys, has_P = (np.repeat(each, row_positives.lengths) for each in (key_R, has_R))
    as_document = same_text[query_of_row]
    doc = [row_positives.values[has_P], as_document[has_R & (as_document >= 0)]]
    key = [positive_keys[has_P], key_R[has_R & (as_document >= 0)]]
    of_corpus = None if corpus is None else corpus.key_hashes()
    if corpus is not None and of_corpus is not None:
        doc += [documents.numbers_of(each) for each, _ in corpus.blocks()]
        key.append(of_corpus)
    _, code = np.unique(np.concatenate([key_R[has_R], *key]), return_inverse=True)
    of_rows, of_documents = np.split(code, [int(has_R.sum())])
    return Keys(
        _grouped(query_of_row[has_R], of_rows, len(same_text)),
        _grouped(np.concatenate(doc), of_documents, len(documents)),
    )


def _grouped(owner: np.ndarray, values: np.ndarray, num_owners: int) -> RaggedValues:
    """Distinct values of each owner, ascending."""
    size = int(values.max(initial=0)) + 1
    pairs = np.unique(owner * size + values)
    counts = np.bincount(pairs // size, minlength=num_owners)
    return RaggedValues(pairs % size, np.concatenate([[0], np.cumsum(counts)]))
