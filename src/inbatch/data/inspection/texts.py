"""Texts of rows by column, and their hashes, as the other parts of an inspection look at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from inbatch.data.sources.source import Source


class ReadText(NamedTuple):
    """A text of a row."""

    column: str
    prompt: str
    text: str


def texts_of_rows(
    source: Source, rows: np.ndarray, prompts: Mapping[str, str] | None
) -> list[list[ReadText]]:
    """The texts of each of some rows: query, positives, negatives.

    Args:
        source: where they are.
        rows: their numbers.
        prompts: of the encoder.
    """
    of_column = source.column_prompts(prompts)
    texts, _ = source.read(rows)
    return [
        [ReadText(*parts) for parts in zip(source.columns, of_column, row, strict=True)]
        for row in zip(*texts)
    ]


def hashes_by_column(source: Source) -> dict[str, np.ndarray]:
    """Hashes of all texts of each column, uint64."""
    return dict(zip(source.columns, source.text_hashes(), strict=True))
