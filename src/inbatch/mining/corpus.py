"""A corpus as a column of texts, and perhaps one of keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from inbatch.corpus.texts import Texts, windows
from inbatch.data.hashing import hash_texts


@final
class CorpusColumn:
    """The texts of a corpus, by row.

    Args:
        texts: of all rows.
        keys: of the rows, such as the product of each; None for none.
    """

    def __init__(self, texts: Texts, keys: Texts | None = None) -> None:
        self.texts, self._keys = texts, keys

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `distinct.TextColumn`."""
        for start, stop in windows(len(self.texts)):
            yield hash_texts(self.texts.read(start, stop)), np.arange(start, stop)

    def read(self, rows: np.ndarray, keys: np.ndarray) -> list[str]:
        """The texts of some rows; those that follow each other are read together."""
        texts: list[str] = []
        for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
            if len(run):
                texts += self.texts.read(int(run[0]), int(run[-1]) + 1)
        return texts

    def key_hashes(self) -> np.ndarray | None:
        """Hash of the key of each row, in order, uint64; None without keys."""
        if self._keys is None:
            return None
        parts = (hash_texts(self._keys.read(*window)) for window in windows(len(self.texts)))
        return np.concatenate(list(parts))
