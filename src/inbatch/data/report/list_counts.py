"""Counts over all rows with lists, from their hashes. Shape letters: N rows, n rows of a block, T texts.

Rows are passed over in blocks, so that memory stays flat. What takes a sort is counted on one text in k, or
on one block of rows in k, as subsample.py says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from inbatch.data.plan.permutation import mix64
from inbatch.data.ragged import RaggedValues
from inbatch.data.report.false_negatives import Lists
from inbatch.data.report.subsample import one_in
from inbatch.data.report.values import Lengths, ListBin, ListLengths, Shared

_BLOCK_ROWS = 1 << 16
_MOST_BINS = 10
_ODD = np.uint64(0x9E3779B97F4A7C15)


class ListCounts(NamedTuple):
    """Counts of a source; those that are no lengths are estimates where `counted_one_in` is above 1."""

    positives: ListLengths
    negatives: ListLengths
    num_without_negatives: int
    num_duplicate_rows: int  # rows whose texts all occur in an earlier row
    num_positive_is_query: int
    num_negative_is_own: int  # rows in which a negative equals the query or a positive
    num_distinct: tuple[int, int, int]  # queries, positives, negatives
    shared_queries: Shared
    shared_positives: Shared
    counted_one_in: int


class _Block(NamedTuple):
    """Texts of consecutive rows."""

    values_T: np.ndarray
    owner_T: np.ndarray  # row in the source
    role_T: np.ndarray  # 0 query, 1 positive, 2 negative
    starts_n: np.ndarray

    @property
    def row_hashes(self) -> np.ndarray:
        """One hash for each row, uint64 [n], which knows the places and roles of its texts."""
        counts_n = np.diff(np.append(self.starts_n, len(self.values_T)))
        place_T = np.arange(len(self.values_T)) - np.repeat(self.starts_n, counts_n)
        salt_T = mix64((place_T * 3 + self.role_T).astype(np.uint64) + _ODD)
        return np.add.reduceat(mix64(self.values_T ^ salt_T), self.starts_n)

    def is_known(self) -> tuple[int, int]:
        """Rows with a positive equal to the query, and rows with a negative equal to either."""
        in_row_T = mix64(self.values_T + self.owner_T.astype(np.uint64) * _ODD)
        query, positive, negative = (self.role_T == role for role in range(3))
        same = np.isin(in_row_T[positive], in_row_T[query])
        own = np.isin(in_row_T[negative], in_row_T[~negative])
        return (
            len(np.unique(self.owner_T[positive][same])),
            len(np.unique(self.owner_T[negative][own])),
        )


def count_lists(lists: Lists) -> ListCounts:
    """Count what a report says about the lists of a source."""
    num_rows, k = lists.texts.num_rows, one_in(len(lists.texts.values) // 2)
    chosen: list[list[np.ndarray]] = [[], [], []]
    owners: list[list[np.ndarray]] = [[], []]
    rows, same, own, looked_at = [], 0, 0, 0
    for number, block in enumerate(_blocks(lists)):
        hashes_n = block.row_hashes
        rows.append(hashes_n[hashes_n % np.uint64(k) == 0])
        kept_T = block.values_T % np.uint64(k) == 0
        for role in range(3):
            here = kept_T & (block.role_T == role)
            chosen[role].append(block.values_T[here])
            if role < 2:
                owners[role].append(block.owner_T[here])
        if number % k == 0:
            of_block = block.is_known()
            same, own = same + of_block[0], own + of_block[1]
            looked_at += len(hashes_n)
    positives_N = np.asarray(lists.positives_N)
    negatives_N = lists.texts.lengths - 1 - positives_N
    row_hashes = np.concatenate(rows)
    texts = [np.concatenate(values) for values in chosen]
    scale = num_rows / looked_at
    return ListCounts(
        positives=list_lengths(positives_N),
        negatives=list_lengths(negatives_N),
        num_without_negatives=int((negatives_N == 0).sum()),
        num_duplicate_rows=k * (len(row_hashes) - len(np.unique(row_hashes))),
        num_positive_is_query=round(same * scale),
        num_negative_is_own=round(own * scale),
        num_distinct=tuple(k * len(np.unique(values)) for values in texts),  # type: ignore[arg-type]
        shared_queries=_shared(texts[0], np.concatenate(owners[0]), k),
        shared_positives=_shared(texts[1], np.concatenate(owners[1]), k),
        counted_one_in=k,
    )


def lengths_by_role(lengths: Lists) -> tuple[Lengths | None, ...]:
    """Distribution of the lengths of queries, positives and negatives; None where there are none.

    Args:
        lengths: with the length of each text in place of its hash.
    """
    totals = [np.zeros(1, dtype=np.int64) for _ in range(3)]
    for block in _blocks(lengths):
        for role in range(3):
            counts = np.bincount(block.values_T[block.role_T == role])
            longer, shorter = sorted((totals[role], counts), key=len, reverse=True)
            longer = longer.copy()
            longer[: len(shorter)] += shorter
            totals[role] = longer
    return tuple(_lengths(total) if total.any() else None for total in totals)


def _lengths(texts: np.ndarray) -> Lengths:
    """From the number of texts of each length."""
    below = np.cumsum(texts)
    p50, p95 = np.searchsorted(below, [(below[-1] + 1) // 2, -(-below[-1] * 95 // 100)]).tolist()
    present = np.flatnonzero(texts)
    mean = float(np.average(np.arange(len(texts)), weights=texts))
    return Lengths(int(present[0]), round(mean, 2), float(p50), float(p95), int(present[-1]))


def list_lengths(counts_N: np.ndarray) -> ListLengths:
    """Distribution of the lengths of lists."""
    rows = np.bincount(counts_N)
    present = np.flatnonzero(rows)
    half = np.searchsorted(np.cumsum(rows), (len(counts_N) + 1) // 2)
    if len(present) <= _MOST_BINS:
        bins = [ListBin(number, number, int(rows[number])) for number in present.tolist()]
    else:
        bins = _wider_bins(rows, int(present[0]))
    mean = float(np.average(np.arange(len(rows)), weights=rows))
    return ListLengths(int(present[0]), round(mean, 2), float(half), len(rows) - 1, tuple(bins))


def _wider_bins(rows: np.ndarray, first: int) -> list[ListBin]:
    """Bins 0, 1, 2 to 3, 4 to 7 and so on."""
    bins, low = [], first
    while low < len(rows):
        high = min(max(low, (1 << low.bit_length()) - 1), len(rows) - 1)
        count = int(rows[low : high + 1].sum())
        if count:
            bins.append(ListBin(low, high, count))
        low = high + 1
    return bins


def _shared(values: np.ndarray, owners: np.ndarray, k: int) -> Shared:
    """Texts that several rows have; a row counts once for each."""
    order = np.lexsort((owners, values))
    values, owners = values[order], owners[order]
    new_text = np.append(True, values[1:] != values[:-1])[: len(values)]
    new_row = (new_text | np.append(True, owners[1:] != owners[:-1])[: len(values)]).astype(bool)
    sizes = np.bincount(np.cumsum(new_text) - 1, weights=new_row).astype(np.int64)
    several = sizes >= 2
    num_rows, num_texts = int(sizes[several].sum()), int(several.sum())
    return Shared(
        num_rows * k,
        num_texts * k,
        num_rows / max(int(sizes.sum()), 1),
        num_texts / max(len(sizes), 1),
    )


def _blocks(lists: Lists) -> Iterator[_Block]:
    texts = RaggedValues(np.asarray(lists.texts.values), np.asarray(lists.texts.offsets))
    for start in range(0, texts.num_rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, texts.num_rows)
        offsets = np.asarray(texts.offsets[start : stop + 1], dtype=np.int64)
        counts_n, starts_n = np.diff(offsets), offsets[:-1] - offsets[0]
        owner_T = np.repeat(np.arange(start, stop), counts_n)
        place_T = np.arange(offsets[-1] - offsets[0]) - np.repeat(starts_n, counts_n)
        known_T = np.repeat(lists.positives_N[start:stop], counts_n)
        role_T = np.where(place_T == 0, 0, np.where(place_T <= known_T, 1, 2))
        yield _Block(texts.values[offsets[0] : offsets[-1]], owner_T, role_T, starts_n)
