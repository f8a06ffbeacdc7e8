"""Known false negatives of a batch, by the relation that `loss.mask_duplicates` masks.

A known positive of a query is a text equal to it or to one of its positives, and each query and positive of
a row that shares such a text, or the key, with its row. Where another row brings one as a document it is a
false negative. Shape letters: B rows of a batch, A texts and keys of these rows, S rows looked at, U distinct
values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from inbatch.data.ragged import RaggedValues, spans
from inbatch.data.report.values import FalseNegatives
from inbatch.data.sources.source import Source

LOOKED_AT_ROWS = 256  # of a batch, spread over it


class Cells(NamedTuple):
    """Texts and keys of a batch, flat and in any order."""

    row_A: np.ndarray  # int64, in the batch
    value_A: np.ndarray  # uint64 hashes
    relates_A: np.ndarray  # bool: a query, a positive or a key
    document_A: np.ndarray  # bool: a positive or a negative
    positive_A: np.ndarray  # bool


class BatchCounts(NamedTuple):
    """Counts of one batch; those of rows and negatives are of the rows that were looked at."""

    any_in_batch: bool
    num_rows: int
    num_rows_with: int
    num_negatives: int
    num_false: int


def cells_of(source: Source, rows_B: np.ndarray) -> Cells:
    """The cells of some rows of a source."""
    keys = source.keys()
    keys_B = None if keys is None else np.asarray(keys[rows_B])
    if source.ragged is not None:
        positives_B = source.ragged.positive_counts()[rows_B]
        return cells_of_lists(source.ragged.hashes().take(rows_B), positives_B, keys_B)
    hashes_CB = np.asarray(source.text_hashes()[:, rows_B])
    columns, num_rows = hashes_CB.shape
    texts = RaggedValues(hashes_CB.T.reshape(-1), np.arange(num_rows + 1) * columns)
    return cells_of_lists(texts, np.ones(num_rows, dtype=np.int64), keys_B)


def cells_of_lists(
    texts: RaggedValues, positives_B: np.ndarray, keys_B: np.ndarray | None
) -> Cells:
    """The cells of rows with lists of documents.

    Args:
        texts: hashes of each row's query, positives and negatives, in this order.
        positives_B: positives of each row.
        keys_B: uint64, hash of its key; None where rows have none.
    """
    lengths_B = texts.lengths
    row_A = np.repeat(np.arange(texts.num_rows), lengths_B)
    place_A = spans(0, lengths_B)
    known_A = place_A <= positives_B[row_A]
    cells = Cells(row_A, texts.values, known_A, place_A > 0, known_A & (place_A > 0))
    if keys_B is None:
        return cells
    every, none = np.ones(len(keys_B), dtype=bool), np.zeros(len(keys_B), dtype=bool)
    # Inverted, so that no key equals a text that reads the same.
    keys = Cells(np.arange(len(keys_B)), ~keys_B, every, none, none)
    return Cells(*(np.concatenate(arrays) for arrays in zip(cells, keys)))


def joined(parts: Sequence[Cells], places: Sequence[np.ndarray]) -> Cells:
    """Cells of several sources, whose rows have these places in the batch."""
    rows = [place[part.row_A] for part, place in zip(parts, places, strict=True)]
    others = [np.concatenate(arrays) for arrays in zip(*(part[1:] for part in parts))]
    return Cells(np.concatenate(rows), *others)


def count_false_negatives(cells: Cells, num_rows: int) -> BatchCounts:
    """Count the false negatives among the documents that a batch's queries are contrasted with.

    Args:
        cells: of the whole batch.
        num_rows: B.
    """
    values_U, text_A = np.unique(cells.value_A, return_inverse=True)
    rows_S = _rows_looked_at(num_rows)
    known_SU = _known(cells, text_A, rows_S, (num_rows, len(values_U)))
    documents_U = np.bincount(text_A[cells.document_A], minlength=len(values_U))
    own_S = np.bincount(cells.row_A[cells.positive_A], minlength=num_rows)[rows_S]
    false_S = known_SU.astype(np.int64) @ documents_U - own_S
    negatives_S = documents_U.sum() - own_S
    return BatchCounts(
        _any(cells, text_A, len(values_U)),
        len(rows_S),
        int((false_S > 0).sum()),
        int(negatives_S.sum()),
        int(false_S.sum()),
    )


def find_examples(cells: Cells, num_rows: int, *, most: int) -> list[tuple[int, int]]:
    """Some false negatives of a batch: a row, and the cell that is one to its query, the first of the query.

    Args:
        cells: of the whole batch.
        num_rows: B.
        most: examples.
    """
    values_U, text_A = np.unique(cells.value_A, return_inverse=True)
    rows_S = _rows_looked_at(num_rows)
    known_SU = _known(cells, text_A, rows_S, (num_rows, len(values_U)))

    def each() -> Iterator[tuple[int, int]]:
        documents_A = np.flatnonzero(cells.document_A)
        for row, first, end in zip(rows_S.tolist(), known_SU.indptr, known_SU.indptr[1:]):
            is_known_U = np.zeros(len(values_U), dtype=bool)
            is_known_U[known_SU.indices[first:end]] = True
            own_A = (cells.row_A[documents_A] == row) & cells.positive_A[documents_A]
            found = documents_A[is_known_U[text_A[documents_A]] & ~own_A]
            if len(found):
                yield row, int(found[0])

    return list(islice(each(), most))


def summed(counts: Sequence[BatchCounts]) -> FalseNegatives:
    """The shares of some batches of a sampler."""
    rows = sum(count.num_rows for count in counts)
    negatives = sum(count.num_negatives for count in counts)
    return FalseNegatives(
        num_batches=len(counts),
        batch_share=sum(count.any_in_batch for count in counts) / max(len(counts), 1),
        row_share=sum(count.num_rows_with for count in counts) / max(rows, 1),
        negative_share=sum(count.num_false for count in counts) / max(negatives, 1),
    )


def _rows_looked_at(num_rows: int) -> np.ndarray:
    return np.unique(np.linspace(0, num_rows - 1, min(LOOKED_AT_ROWS, num_rows)).astype(np.int64))


def _known(
    cells: Cells, text_A: np.ndarray, rows_S: np.ndarray, shape: tuple[int, int]
) -> csr_array:
    """The known positives of some rows, bool [S, U]."""
    places = (cells.row_A[cells.relates_A], text_A[cells.relates_A])
    ones = np.ones(len(places[0]), dtype=np.int64)
    relates_BU = csr_array((ones, places), shape=shape).astype(bool)
    return relates_BU[rows_S] @ relates_BU.T @ relates_BU


def _any(cells: Cells, text_A: np.ndarray, num_values: int) -> bool:
    """Whether a value relates two rows, or a negative is equal to a query or a positive."""
    row_A, chosen = cells.row_A[cells.relates_A], text_A[cells.relates_A]
    first_U = np.full(num_values, -1, dtype=np.int64)
    first_U[chosen] = row_A
    negative_A = cells.document_A & ~cells.positive_A
    return bool((first_U[chosen] != row_A).any() or (first_U[text_A[negative_A]] >= 0).any())
