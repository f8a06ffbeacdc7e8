"""Counts over all rows with lists, from their hashes. Shape letters: N rows, n rows of a block, T texts.

Rows are passed over in blocks, so that memory stays flat. What takes a sort is counted on one text in k, as
subsample.py says, and what compares the texts of a row on one block of rows in k. So of all texts no more
than the remainder of their hash is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from inbatch.data.plan.permutation import mix64
from inbatch.data.ragged import RaggedValues
from inbatch.data.report.subsample import one_in
from inbatch.data.report.values import Bin, Lengths, ListLengths, Shared

_BLOCK_ROWS = 1 << 16
_MOST_BINS = 10
_ODD = np.uint64(0x9E3779B97F4A7C15)


class Lists(NamedTuple):
    """Texts of rows with lists.

    texts: 64-bit hashes of each row's query, positives and negatives, in this order.
    positives_N: positives of each row.
    """

    texts: RaggedValues
    positives_N: np.ndarray


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
    """Consecutive rows."""

    first: int  # row
    texts: RaggedValues
    positives_n: np.ndarray

    def roles_of(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row in the block and role of texts: 0 query, 1 positive, 2 negative."""
        rows = np.searchsorted(self.texts.offsets, places, side="right") - 1
        inside = places - self.texts.offsets[rows]
        return rows, np.where(inside == 0, 0, np.where(inside <= self.positives_n[rows], 1, 2))

    def hashes_of(self, rows: np.ndarray) -> np.ndarray:
        """One hash for each of some rows, uint64, which knows the places and roles of its texts."""
        places, offsets = self.texts.places(rows)
        number, role = self.roles_of(places)
        inside = places - self.texts.offsets[number]
        salt = mix64((inside * 3 + role).astype(np.uint64) + _ODD)
        hashes = mix64(self.texts.values[places] ^ salt)
        return np.add.reduceat(hashes, offsets[:-1]) if len(rows) else hashes

    def count_known(self) -> tuple[int, int]:
        """Rows with a positive equal to the query, and rows with a negative equal to either."""
        rows, roles = self.roles_of(np.arange(len(self.texts.values)))
        in_row = mix64(self.texts.values + rows.astype(np.uint64) * _ODD)
        query, positive, negative = (roles == role for role in range(3))
        same = np.isin(in_row[positive], in_row[query])
        own = np.isin(in_row[negative], in_row[~negative])
        return len(np.unique(rows[positive][same])), len(np.unique(rows[negative][own]))


def count_lists(lists: Lists) -> ListCounts:
    """Count what a report says about the lists of a source."""
    k = one_in(len(lists.texts.values) // 2)
    values: list[list[np.ndarray]] = [[], [], []]
    owners: list[list[np.ndarray]] = [[], [], []]
    histograms = [np.zeros(1, dtype=np.int64) for _ in range(2)]
    repeated, same, own, looked_at = [], 0, 0, 0
    for number, block in enumerate(_blocks(lists)):
        kept = np.flatnonzero(block.texts.values % np.uint64(k) == 0)
        rows, roles = block.roles_of(kept)
        for role in range(3):
            here = roles == role
            values[role].append(block.texts.values[kept[here]])
            owners[role].append(rows[here] + block.first)
        repeated.append(block.hashes_of(rows[roles == 0]))  # rows that are equal have equal queries
        negatives_n = block.texts.lengths - 1 - block.positives_n
        for role, counts_n in enumerate((block.positives_n, negatives_n)):
            histograms[role] = _sum(histograms[role], np.bincount(counts_n))
        if number % k == 0:
            known = block.count_known()
            same, own = same + known[0], own + known[1]
            looked_at += block.texts.num_rows
    hashes, scale = np.concatenate(repeated), lists.texts.num_rows / looked_at
    texts, of_rows = [np.concatenate(part) for part in values], list(map(np.concatenate, owners))
    return ListCounts(
        positives=list_lengths(histograms[0]),
        negatives=list_lengths(histograms[1]),
        num_without_negatives=int(histograms[1][0]),
        num_duplicate_rows=k * (len(hashes) - len(np.unique(hashes))),
        num_positive_is_query=round(same * scale),
        num_negative_is_own=round(own * scale),
        num_distinct=tuple(k * len(np.unique(part)) for part in texts),  # type: ignore[arg-type]
        shared_queries=_shared(texts[0], of_rows[0], k),
        shared_positives=_shared(texts[1], of_rows[1], k),
        counted_one_in=k,
    )


def lengths_by_role(lengths: Lists) -> tuple[Lengths | None, ...]:
    """Distribution of the lengths of queries, positives and negatives; None where there are none.

    Args:
        lengths: with the length of each text in place of its hash.
    """
    totals = [np.zeros(1, dtype=np.int64) for _ in range(3)]
    for number, block in enumerate(_blocks(lengths)):
        if number % one_in(len(lengths.texts.values) // 2) == 0:
            _, roles = block.roles_of(np.arange(len(block.texts.values)))
            for role in range(3):
                counts = np.bincount(block.texts.values[roles == role])
                totals[role] = _sum(totals[role], counts)
    return tuple(_lengths(total) if total.any() else None for total in totals)


def _sum(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of histograms, the longer one's length."""
    total = np.zeros(max(len(left), len(right)), dtype=np.int64)
    total[: len(left)] += left
    total[: len(right)] += right
    return total


def _lengths(texts: np.ndarray) -> Lengths:
    """From the number of texts of each length."""
    below = np.cumsum(texts)
    p50, p95 = np.searchsorted(below, [(below[-1] + 1) // 2, -(-below[-1] * 95 // 100)]).tolist()
    present = np.flatnonzero(texts)
    mean = float(np.average(np.arange(len(texts)), weights=texts))
    return Lengths(int(present[0]), round(mean, 2), float(p50), float(p95), int(present[-1]))


def list_lengths(rows: np.ndarray) -> ListLengths:
    """Distribution of the lengths of lists, from the number of rows of each length."""
    present = np.flatnonzero(rows)
    half = np.searchsorted(np.cumsum(rows), (rows.sum() + 1) // 2)
    if len(present) <= _MOST_BINS:
        bins = [Bin(number, number, int(rows[number])) for number in present.tolist()]
    else:
        bins = _wider_bins(rows, int(present[0]))
    mean = float(np.average(np.arange(len(rows)), weights=rows))
    return ListLengths(int(present[0]), round(mean, 2), float(half), len(rows) - 1, tuple(bins))


def _wider_bins(rows: np.ndarray, first: int) -> list[Bin]:
    """Bins 0, 1, 2 to 3, 4 to 7 and so on."""
    bins, low = [], first
    while low < len(rows):
        high = min(max(low, (1 << low.bit_length()) - 1), len(rows) - 1)
        count = int(rows[low : high + 1].sum())
        if count:
            bins.append(Bin(low, high, count))
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
    values, offsets = np.asarray(lists.texts.values), np.asarray(lists.texts.offsets)
    for start in range(0, lists.texts.num_rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, lists.texts.num_rows)
        bounds = np.asarray(offsets[start : stop + 1], dtype=np.int64)
        texts = RaggedValues(values[bounds[0] : bounds[-1]], bounds - bounds[0])
        yield _Block(start, texts, np.asarray(lists.positives_N[start:stop]))
