"""Documents of a ragged batch: rows with lists of positives and negatives.

Shape letters: B rows, M documents of a batch, T = B + M texts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inbatch.data.ragged import spans


class Documents(NamedTuple):
    """How many documents each row has.

    The texts of a ragged batch have the flat order: B queries, then the documents by row, and in a row its
    positives before its negatives.
    """

    counts: np.ndarray  # int64 [B], documents of each row, at least 1
    positives: np.ndarray  # int64 [B], how many of them, the first ones, are positives; at least 1
    # Documents of each rank of the global batch, where the plan knows them; None: ranks have to ask.
    of_ranks: tuple[int, ...] | None = None

    @property
    def num(self) -> int:
        """Documents M of all rows."""
        return int(self.counts.sum())

    @property
    def owner(self) -> np.ndarray:
        """Row of each document, int64 [M], rising."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def is_positive(self) -> np.ndarray:
        """Whether each document is a positive of its row, bool [M]."""
        return spans(0, self.counts) < np.repeat(self.positives, self.counts)
