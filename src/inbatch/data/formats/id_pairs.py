"""Pairs of a query and a document, as numbers of texts, on the disk until rows are made of them.

Shape letters: P pairs, Q queries.

A block of pairs is written in the order of its queries. So all pairs of some queries stand in one piece of
each block, and no more of them are read together than fit well in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self, final

import numpy as np

# Aligned, since numpy would copy the queries of a block for each search in them.
_PAIR = np.dtype(
    [("query", "i4"), ("document", "i4"), ("positive", "?"), ("score", "f4")], align=True
)
_READ_PAIRS = 1 << 20  # that are read together, or all of one query


class Pairs(NamedTuple):
    """Documents of queries."""

    queries: np.ndarray  # int32 [P], numbers
    documents: np.ndarray  # int32 [P]
    positive: np.ndarray  # bool [P]
    scores: np.ndarray  # float32 [P], NaN for none


@final
class PairFile:
    """A file of pairs, which is written, then read once, and removed at the end of its ``with`` block.

    Args:
        path: of the file.
        num_queries: Q.
    """

    def __init__(self, path: Path, num_queries: int) -> None:
        self._path, self._file = path, path.open("wb")
        self._counts_Q = np.zeros(num_queries, dtype=np.int32)
        self._blocks = [0]  # where each begins, and where the last ends
        self.has_scores = True  # each pair has one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink()

    def write(self, pairs: Pairs) -> None:
        """Add a block."""
        order = np.argsort(pairs.queries, kind="stable")
        block = np.empty(len(order), dtype=_PAIR)
        for name, values in zip(_PAIR.names or (), pairs):
            block[name] = values[order]
        block.tofile(self._file)
        np.add.at(self._counts_Q, pairs.queries, 1)
        self._blocks.append(self._blocks[-1] + len(block))
        self.has_scores &= not bool(np.isnan(pairs.scores).any())

    def read(self) -> Iterator[Pairs]:
        """All pairs of some queries, then those of the next ones; of each query as they were written."""
        self._file.flush()
        if self._blocks[-1] == 0:
            return
        mapped = np.memmap(self._path, _PAIR, "r")
        blocks = [mapped[start:stop] for start, stop in zip(self._blocks, self._blocks[1:])]
        ends_Q = np.cumsum(self._counts_Q, dtype=np.int64)
        first, taken = 0, 0
        while taken < ends_Q[-1]:
            fit = int(np.searchsorted(ends_Q, taken + _READ_PAIRS, side="right"))
            stop = max(fit, first + 1)
            bounds = np.array([first, stop], dtype=np.int32)
            pieces = [np.searchsorted(block["query"], bounds) for block in blocks]
            found = np.concatenate([block[low:high] for block, (low, high) in zip(blocks, pieces)])
            found = found[np.argsort(found["query"], kind="stable")]
            yield Pairs(*(np.ascontiguousarray(found[name]) for name in _PAIR.names or ()))
            first, taken = stop, int(ends_Q[stop - 1])
