"""Lists of values by row, flat. Shape letters: N rows, M values, B chosen rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class RaggedValues(NamedTuple):
    """Row i holds ``values[offsets[i]:offsets[i + 1]]``; both may be memory-mapped."""

    values: np.ndarray  # [M]
    offsets: np.ndarray  # int64 [N + 1]

    @property
    def num_rows(self) -> int:
        """Rows N."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Values of each row, int64 [N]."""
        return np.diff(self.offsets)

    def take(self, rows_B: np.ndarray) -> RaggedValues:
        """These rows, in this order, copied."""
        places, offsets = self.places(rows_B)
        return RaggedValues(np.asarray(self.values[places]), offsets)

    def places(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of the values of these rows, and their offsets [B + 1]."""
        starts_B = np.asarray(self.offsets[rows_B], dtype=np.int64)
        lengths_B = np.asarray(self.offsets[rows_B + 1], dtype=np.int64) - starts_B
        return spans(starts_B, lengths_B), np.concatenate([[0], np.cumsum(lengths_B)])


def spans(starts_B: np.ndarray | int, lengths_B: np.ndarray) -> np.ndarray:
    """``start, start + 1, ...`` of each row, as many as its length, one row behind another: int64 [M]."""
    before_B = np.cumsum(lengths_B) - lengths_B
    shift_M = np.repeat(starts_B - before_B, lengths_B)
    return np.arange(len(shift_M)) + shift_M
