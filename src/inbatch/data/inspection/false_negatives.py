"""Known false negatives of a batch, by the relation that `loss.mask_duplicates` masks.

A known positive of a query is a text equal to it or to one of its positives, and each query and positive of
a row that shares such a text, or the key, with its row. Where another row brings one as a document it is a
false negative. Shape letters: B rows of a batch, A texts and keys of these rows, S rows looked at, U distinct
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from inbatch.data.sources.source import Source

LOOKED_AT_ROWS = 256  # of a batch, spread over it


class Cells(NamedTuple):
    """Texts and keys of a batch, flat and in any order."""

    row_A: np.ndarray  # int64, in the batch
    value_A: np.ndarray  # uint64 hashes
    relates_A: np.ndarray  # bool: a query, a positive or a key
    document_A: np.ndarray  # bool: a positive or a negative
    positive_A: np.ndarray  # bool


class FalseNegatives(NamedTuple):
    """Counts of one batch; those of rows and negatives are of the rows that were looked at."""

    any_in_batch: bool
    num_rows: int
    num_rows_with: int
    num_negatives: int
    num_false: int


def cells_of(source: Source, rows_B: np.ndarray) -> Cells:
    """The cells of some rows of a source."""
    hashes_CB = np.asarray(source.text_hashes()[:, rows_B])
    keys = source.keys()
    parts = [*hashes_CB]
    if keys is not None:
        parts.append(
            ~np.asarray(keys[rows_B])
        )  # never equal to the hash of a text that reads the same
    columns, num_rows = len(hashes_CB), len(rows_B)
    number_A = np.repeat(np.arange(len(parts)), num_rows)
    return Cells(
        np.tile(np.arange(num_rows), len(parts)),
        np.concatenate(parts),
        (number_A < 2) | (number_A == columns),
        (number_A > 0) & (number_A < columns),
        number_A == 1,
    )


def joined(parts: Sequence[Cells], places: Sequence[np.ndarray]) -> Cells:
    """Cells of several sources, whose rows have these places in the batch."""
    rows = [place[part.row_A] for part, place in zip(parts, places, strict=True)]
    others = [np.concatenate(arrays) for arrays in zip(*(part[1:] for part in parts))]
    return Cells(np.concatenate(rows), *others)


def count_false_negatives(cells: Cells, num_rows: int) -> FalseNegatives:
    """Count the false negatives among the documents that a batch's queries are contrasted with.

    Args:
        cells: of the whole batch.
        num_rows: B.
    """
    values_U, text_A = np.unique(cells.value_A, return_inverse=True)
    shape = (num_rows, len(values_U))
    rows_S = np.unique(np.linspace(0, num_rows - 1, min(LOOKED_AT_ROWS, num_rows)).astype(np.int64))

    def table(chosen_A: np.ndarray) -> csr_array:
        places = (cells.row_A[chosen_A], text_A[chosen_A])
        return csr_array((np.ones(len(places[0]), dtype=np.int64), places), shape=shape)

    relates_BU = table(cells.relates_A).astype(bool)
    related_SB = relates_BU[rows_S] @ relates_BU.T
    known_SU = related_SB @ relates_BU
    documents_U = np.bincount(text_A[cells.document_A], minlength=len(values_U))
    own_S = np.bincount(cells.row_A[cells.positive_A], minlength=num_rows)[rows_S]
    false_S = known_SU.astype(np.int64) @ documents_U - own_S
    negatives_S = documents_U.sum() - own_S
    return FalseNegatives(
        _any(cells, text_A, len(values_U)),
        len(rows_S),
        int((false_S > 0).sum()),
        int(negatives_S.sum()),
        int(false_S.sum()),
    )


def _any(cells: Cells, text_A: np.ndarray, num_values: int) -> bool:
    """Whether a value relates two rows, or a negative is equal to a query or a positive."""
    row_A, chosen = cells.row_A[cells.relates_A], text_A[cells.relates_A]
    first_U = np.full(num_values, -1, dtype=np.int64)
    first_U[chosen] = row_A
    negative_A = cells.document_A & ~cells.positive_A
    return bool((first_U[chosen] != row_A).any() or (first_U[text_A[negative_A]] >= 0).any())
