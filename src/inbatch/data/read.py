"""Row numbers -> the contents of a batch: texts or stored tokens, labels, hashes.

Shape letters: C text columns, B rows. Where a source has its tokens stored, texts are read only
on request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from inbatch.data.hashing import hash_texts
from inbatch.data.sources.source import Source

T = TypeVar("T")
TextColumns = list[list[str]]  # by column and row


class StoredTokens(NamedTuple):
    """Token ids that came with the rows."""

    ids: list[list[np.ndarray]]  # by column and row
    prompt_lengths: list[int]  # [C]


class ReadRows(NamedTuple):
    """Rows of one source, or of several with the same columns."""

    texts: TextColumns | None  # None where nobody asked and the tokens are there
    labels: np.ndarray | None  # float32 [B]
    text_ids: np.ndarray  # uint64 [C, B], hashes of the texts
    tokens: StoredTokens | None


def read_rows(
    source: Source, rows: np.ndarray, *, want_texts: bool, want_tokens: bool = True
) -> ReadRows:
    """Rows of one source.

    Args:
        source: where they are.
        rows: their numbers [B].
        want_texts: read texts in any case.
        want_tokens: read tokens where they are stored.
    """
    store = source.tokens if want_tokens else None
    tokens = None if store is None else StoredTokens(store.read(rows), store.prompt_lengths)
    texts, labels = (
        source.read(rows) if want_texts or tokens is None else (None, source.labels(rows))
    )
    if source.stored is not None:
        text_ids = np.asarray(source.text_hashes()[:, rows])
    else:
        text_ids = np.stack([hash_texts(column) for column in texts or []])
    return ReadRows(texts, labels, text_ids, tokens)


def read_mixed(
    sources: Sequence[Source], source_B: np.ndarray, rows_B: np.ndarray, *, want_texts: bool
) -> ReadRows:
    """Rows of several sources in the order given, as one source would give them."""
    want_tokens = all(source.tokens is not None for source in sources)
    numbers = np.unique(source_B).tolist()
    places = [np.flatnonzero(source_B == number) for number in numbers]
    parts = [
        read_rows(sources[number], rows_B[at], want_texts=want_texts, want_tokens=want_tokens)
        for number, at in zip(numbers, places)
    ]
    if len(parts) == 0:  # a rank without rows
        return read_rows(sources[0], rows_B, want_texts=want_texts, want_tokens=want_tokens)
    back = np.argsort(np.concatenate(places))  # place in the batch -> place in the parts
    texts = [part.texts for part in parts if part.texts is not None]
    labels = [part.labels for part in parts if part.labels is not None]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return ReadRows(
        _joined(texts, back) if texts else None,
        np.concatenate(labels)[back] if labels else None,
        np.concatenate([part.text_ids for part in parts], axis=1)[:, back],
        StoredTokens(_joined([part.ids for part in tokens], back), tokens[0].prompt_lengths)
        if tokens
        else None,
    )


def _joined(parts: Sequence[list[list[T]]], back: np.ndarray) -> list[list[T]]:
    """Values by column and row, of all parts, in the order of the batch."""
    columns = []
    for column in zip(*parts, strict=True):
        values = [value for part in column for value in part]
        columns.append([values[place] for place in back.tolist()])
    return columns
