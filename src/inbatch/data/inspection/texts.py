"""Texts of rows by column, and their hashes, as the other parts of an inspection look at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from inbatch.data.ragged import spans
from inbatch.data.report.list_source import read_rows, role_names
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
    if source.ragged is not None:
        names = role_names(source.columns)
        return [
            [
                ReadText(names[role], of_column[min(role, len(of_column) - 1)], text)
                for role, texts in enumerate(([row.query], row.positives, row.negatives))
                for text in texts
            ]
            for row in read_rows(source.ragged, rows)
        ]
    texts, _ = source.read(rows)
    return [
        [ReadText(*parts) for parts in zip(source.columns, of_column, row, strict=True)]
        for row in zip(*texts)
    ]


def hashes_by_column(source: Source) -> dict[str, np.ndarray]:
    """Hashes of all texts of each column, uint64; columns of lists with one role are one."""
    if source.ragged is not None:
        texts, positives_N = source.ragged.hashes(), source.ragged.positive_counts()
        place_T = spans(0, texts.lengths)
        known_T = place_T <= np.repeat(positives_N, texts.lengths)
        parts = (place_T == 0, known_T & (place_T > 0), ~known_T)
        names = role_names(source.columns)
        return {name: np.asarray(texts.values)[part_T] for name, part_T in zip(names, parts)}
    return dict(zip(source.columns, source.text_hashes(), strict=True))
