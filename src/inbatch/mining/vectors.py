"""Embeddings by number: of one store, of several as one, or of some of their rows in another order.

Shape letters: N embeddings, n of them, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

import numpy as np

from inbatch.errors import ConfigError


class Vectors(Protocol):
    """N embeddings of one dimension, read by number; nothing is held in memory."""

    def __len__(self) -> int:
        """N."""

    @property
    def dimension(self) -> int:
        """D."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Those from `start` to ``stop - 1``, [n, D] of a floating type."""

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Those with these numbers, in this order, [n, D] of a floating type."""


@final
class ArrayVectors:
    """The rows of an array, which may be memory-mapped."""

    def __init__(self, rows_ND: np.ndarray) -> None:
        self._rows_ND = rows_ND

    def __len__(self) -> int:
        return len(self._rows_ND)

    @property
    def dimension(self) -> int:
        """D."""
        return int(self._rows_ND.shape[1])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """A view."""
        return self._rows_ND[start:stop]

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """A copy."""
        return np.asarray(self._rows_ND[numbers])


@final
class JoinedVectors:
    """Embeddings of several stores, those of the first before those of the next.

    Args:
        parts: of one dimension, one at least.
        numbers: which of all of them, int64 [N], in their new order; None for all.

    Raises:
        ConfigError: they differ in their dimension.
    """

    def __init__(self, parts: Sequence[Vectors], numbers: np.ndarray | None = None) -> None:
        self._parts, self._numbers = list(parts), numbers
        self._starts = np.cumsum([0, *map(len, parts)])
        dimensions = [part.dimension for part in parts]
        if len({*dimensions}) > 1:
            raise ConfigError(
                "mine.corpus_embeddings",
                f"has {dimensions[0]} dimensions, and the encoder {dimensions[1]}",
                "name the embeddings that this encoder has made",
            )

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._numbers is None else len(self._numbers)

    @property
    def dimension(self) -> int:
        """D."""
        return self._parts[0].dimension

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Of one part without a copy, where all are taken."""
        if self._numbers is not None:
            return self._of_all(self._numbers[start:stop])
        part = int(np.searchsorted(self._starts, start, side="right")) - 1
        if stop <= self._starts[part + 1]:
            return self._parts[part].rows(start - self._starts[part], stop - self._starts[part])
        return self._of_all(np.arange(start, stop))

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """A copy."""
        return self._of_all(numbers if self._numbers is None else self._numbers[numbers])

    def _of_all(self, numbers_n: np.ndarray) -> np.ndarray:
        if len(self._parts) == 1:
            return self._parts[0].take(numbers_n)
        part_n = np.searchsorted(self._starts, numbers_n, side="right") - 1
        out = np.empty((len(numbers_n), self.dimension), np.float32)
        for part in np.unique(part_n).tolist():
            places = np.flatnonzero(part_n == part)
            out[places] = self._parts[part].take(numbers_n[places] - self._starts[part])
        return out
