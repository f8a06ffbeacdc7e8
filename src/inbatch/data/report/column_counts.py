"""Counts over all rows of text columns, from their hashes. Shape letters: C text columns, N rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inbatch.data.hashing import hash_rows
from inbatch.data.report.subsample import one_in, subsample
from inbatch.data.report.values import Shared


class ColumnCounts(NamedTuple):
    """Counts of a source; those that take a sort are estimates where `counted_one_in` is above 1."""

    num_duplicate_rows: int  # rows whose texts all occur in an earlier row
    num_positive_is_query: int
    num_negative_is_own: int  # rows in which a negative equals the query or the positive
    shared_queries: Shared
    shared_positives: Shared
    counted_one_in: int


def count_columns(hashes_CN: np.ndarray) -> ColumnCounts:
    """Count what a report says about query, positive and negatives."""
    has_pairs = len(hashes_CN) > 1  # else rows have one text
    query_N, positive_N, negatives = hashes_CN[0], hashes_CN[int(has_pairs)], hashes_CN[2:]
    equal_N = np.zeros(hashes_CN.shape[1], dtype=bool)
    for negative_N in negatives:
        equal_N |= (negative_N == query_N) | (negative_N == positive_N)
    return ColumnCounts(
        num_duplicate_rows=_num_repeats(hashes_CN),
        num_positive_is_query=int((query_N == positive_N).sum()) if has_pairs else 0,
        num_negative_is_own=int(equal_N.sum()),
        shared_queries=shared(query_N, positive_N),
        shared_positives=shared(positive_N, query_N),
        counted_one_in=one_in(hashes_CN.shape[1]),
    )


def shared(left_N: np.ndarray, right_N: np.ndarray) -> Shared:
    """Texts of `left` (hashes) that occur with several distinct texts of `right`.

    Of many rows, counts are estimates (subsample.py).
    """
    factor = one_in(len(left_N))
    rows, left_N = subsample(left_N.__getitem__, len(left_N), keep_one_in=factor)
    right_N = right_N[rows]
    order = np.lexsort((right_N, left_N))
    left_N, right_N = left_N[order], right_N[order]
    new_left = np.append(True, left_N[1:] != left_N[:-1])
    new_pair = new_left | np.append(True, right_N[1:] != right_N[:-1])
    group_N = np.cumsum(new_left) - 1
    several = np.bincount(group_N, weights=new_pair) >= 2
    num_rows = int(np.bincount(group_N)[several].sum())
    num_texts = int(several.sum())
    return Shared(
        num_rows * factor,
        num_texts * factor,
        num_rows / max(len(left_N), 1),
        num_texts / max(len(several), 1),
    )


def num_distinct(hashes_N: np.ndarray) -> int:
    """Distinct texts; of many rows an estimate."""
    factor = one_in(len(hashes_N))
    ordered = np.sort(subsample(hashes_N.__getitem__, len(hashes_N), keep_one_in=factor)[1])
    return factor * (int((ordered[1:] != ordered[:-1]).sum()) + bool(len(ordered)))


def _num_repeats(hashes_CN: np.ndarray) -> int:
    """Rows all texts of which stand in an earlier row."""
    num_rows = hashes_CN.shape[1]
    factor = one_in(num_rows)
    _, rows = subsample(lambda block: hash_rows(hashes_CN[:, block]), num_rows, keep_one_in=factor)
    return factor * (len(rows) - len(np.unique(rows)))
