"""What all parts of a data report measure with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from inbatch.data.report.values import Lengths


class TokenCounter(Protocol):
    """Counts the tokens of texts, as `encoder.TextTokenizer` does."""

    @property
    def max_length(self) -> int:
        """Most tokens that a text keeps."""

    def count(self, texts: Sequence[str], prompt: str = "") -> list[int]:
        """Tokens of each text behind a prompt, special tokens included, before truncation."""


def lengths_of(values: np.ndarray) -> Lengths:
    """Distribution of lengths."""
    p50, p95 = np.percentile(values, [50, 95]).tolist()
    mean = float(values.mean(dtype=np.float64))
    return Lengths(int(values.min()), round(mean, 2), p50, p95, int(values.max()))


def sample(num_rows: int, count: int) -> np.ndarray:
    """Distinct rows in rising order, the same on every call."""
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(num_rows, size=min(count, num_rows), replace=False, shuffle=False))
