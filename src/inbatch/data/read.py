"""Row numbers -> the contents of a batch: texts or stored tokens, labels, hashes, scores.

Shape letters: C text columns, B rows, M documents of rows with lists, T = B + M. Where a source has its
tokens stored, texts are read only on request.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from inbatch.batch.documents import Documents
from inbatch.data.hashing import hash_texts
from inbatch.data.ragged import RaggedValues
from inbatch.data.sources.choice import Draw, Picks
from inbatch.data.sources.ragged_rows import RaggedRows
from inbatch.data.sources.source import Source

T = TypeVar("T")
TextColumns = list[list[str]]  # by column and row


class StoredTokens(NamedTuple):
    """Token ids that came with the rows."""

    ids: list[list[np.ndarray]]  # by column and row
    prompt_lengths: list[int]  # [C]


class ReadRows(NamedTuple):
    """Rows of one source, or of several with the same columns.

    Rows with lists have two columns, one of queries [B] and one of the documents of all rows [M].
    """

    texts: TextColumns | None  # None where nobody asked and the tokens are there
    labels: np.ndarray | None  # float32 [B]
    text_ids: np.ndarray  # uint64 [C, B], hashes of the texts; of rows with lists [T]
    tokens: StoredTokens | None
    documents: Documents | None = None  # of rows with lists
    scores: np.ndarray | None = None  # float32 [M], of documents by row, NaN for none

    @property
    def num_rows(self) -> int:
        """B."""
        return self.text_ids.shape[1] if self.documents is None else len(self.documents.counts)

    @property
    def num_columns(self) -> int:
        """C."""
        return self.text_ids.shape[0] if self.documents is None else 2

    @property
    def document_counts(self) -> np.ndarray:
        """Documents of each row, int64 [B]."""
        if self.documents is not None:
            return self.documents.counts
        return np.full(self.num_rows, self.num_columns - 1)


def read_rows(
    source: Source,
    rows: np.ndarray,
    *,
    want_texts: bool,
    want_tokens: bool = True,
    draw: Draw | None = None,
) -> ReadRows:
    """Rows of one source.

    Args:
        source: where they are.
        rows: their numbers [B].
        want_texts: read texts in any case.
        want_tokens: read tokens where they are stored.
        draw: decides which documents of lists are read; None reads all.
    """
    if source.ragged is not None:
        return _read_lists(source, source.ragged, rows, want_texts, want_tokens, draw)
    store = source.tokens if want_tokens else None
    tokens = None if store is None else StoredTokens(store.read(rows), store.prompt_lengths)
    texts, labels = (
        source.read(rows) if want_texts or tokens is None else (None, source.labels(rows))
    )
    if source.stored is not None:
        text_ids = np.asarray(source.text_hashes()[:, rows])
    else:
        text_ids = np.stack([hash_texts(column) for column in texts or []])
    scores = source.scores()
    if scores is not None:
        scores = np.asarray(scores[:, rows]).T.reshape(-1)
    return ReadRows(texts, labels, text_ids, tokens, scores=scores)


def _read_lists(
    source: Source,
    ragged: RaggedRows,
    rows: np.ndarray,
    want_texts: bool,
    want_tokens: bool,
    draw: Draw | None,
) -> ReadRows:
    store = source.tokens if want_tokens else None
    texts: TextColumns | None = None
    if want_texts or store is None:
        queries, documents, picks = ragged.read(rows, draw)
        texts = [queries, documents]
    else:
        picks = ragged.picks(rows, draw)
    tokens = None
    if source.stored is None:
        text_ids = hash_texts([text for column in texts or [] for text in column])
    else:
        hashes = ragged.hashes()
        places = _places_of_texts(hashes, rows, picks)
        text_ids = np.asarray(hashes.values[places])
        if store is not None:
            (ids,) = store.read(places)  # which counts texts in place of rows
            tokens = StoredTokens([ids[: len(rows)], ids[len(rows) :]], store.prompt_lengths)
    documents_of_rows = Documents(picks.counts, picks.positives)
    scores = ragged.scores_of(rows, picks)
    return ReadRows(texts, source.labels(rows), text_ids, tokens, documents_of_rows, scores)


def _places_of_texts(texts: RaggedValues, rows: np.ndarray, picks: Picks) -> np.ndarray:
    """Where the queries and then the picked documents of some rows stand among all texts, int64 [T]."""
    queries = np.asarray(texts.offsets[rows])
    return np.concatenate([queries, np.repeat(queries + 1, picks.counts) + picks.places])


def read_mixed(
    sources: Sequence[Source],
    source_B: np.ndarray,
    rows_B: np.ndarray,
    *,
    want_texts: bool,
    draw: Draw | None = None,
) -> ReadRows:
    """Rows of several sources in the order given, as one source would give them."""
    want_tokens = all(source.tokens is not None for source in sources)
    read = partial(read_rows, want_texts=want_texts, want_tokens=want_tokens, draw=draw)
    numbers = np.unique(source_B).tolist()
    at = [np.flatnonzero(source_B == number) for number in numbers]
    parts = [read(sources[number], rows_B[places]) for number, places in zip(numbers, at)]
    if len(parts) == 0:  # a rank without rows
        return read(sources[0], rows_B)
    back = np.argsort(np.concatenate(at))  # place in the batch -> place in the parts
    texts = [part.texts for part in parts if part.texts is not None]
    labels = [part.labels for part in parts if part.labels is not None]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    documents = [part.documents for part in parts if part.documents is not None]
    if documents:
        orders, joined_documents = _order_of_lists(documents, back)
        ids = [np.split(part.text_ids, [len(each.counts)]) for part, each in zip(parts, documents)]
        queries, found = map(np.concatenate, zip(*ids))
        text_ids = np.concatenate([queries[orders[0]], found[orders[1]]])
    else:
        orders, joined_documents = [back] * parts[0].text_ids.shape[0], None
        text_ids = np.concatenate([part.text_ids for part in parts], axis=1)[:, back]
    return ReadRows(
        _joined(texts, orders) if texts else None,
        np.concatenate(labels)[back] if labels else None,
        text_ids,
        StoredTokens(_joined([part.ids for part in tokens], orders), tokens[0].prompt_lengths)
        if tokens
        else None,
        joined_documents,
        _joined_scores(parts, back),
    )


def _order_of_lists(
    parts: Sequence[Documents], back: np.ndarray
) -> tuple[list[np.ndarray], Documents]:
    """Places of the batch's queries and documents in the parts, and the documents in its order."""
    counts, positives = (np.concatenate(each) for each in list(zip(*parts))[:2])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    places, _ = RaggedValues(offsets, offsets).places(back)
    return [back, places], Documents(counts[back], positives[back])


def _joined_scores(parts: Sequence[ReadRows], back: np.ndarray) -> np.ndarray | None:
    """Scores in the order of the batch; NaN for the documents of sources without any."""
    if all(part.scores is None for part in parts):
        return None
    counts = np.concatenate([part.document_counts for part in parts])
    scores = [
        np.full(part.document_counts.sum(), np.nan, np.float32)
        if part.scores is None
        else part.scores
        for part in parts
    ]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return RaggedValues(np.concatenate(scores), offsets).take(back).values


def _joined(parts: Sequence[list[list[T]]], orders: Sequence[np.ndarray]) -> list[list[T]]:
    """Values by column, of all parts, in the order of the batch."""
    columns = []
    for order, column in zip(orders, zip(*parts, strict=True), strict=True):
        values = [value for part in column for value in part]
        columns.append([values[place] for place in order.tolist()])
    return columns
