"""Rows as they will be trained on: prompts in front, and what truncation leaves of each text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inbatch.data.inspection.texts import ReadText, texts_of_rows
from inbatch.data.inspection.values import SeenRow, SeenText
from inbatch.data.report.build import TokenCounter
from inbatch.data.sources.source import Source


def seen_rows(
    source: Source,
    *,
    count: int,
    seed: int,
    tokenizer: TokenCounter | None,
    prompts: Mapping[str, str] | None,
) -> tuple[SeenRow, ...]:
    """Some rows of a source, drawn by a seed, in their order.

    Args:
        source: where they are.
        count: how many, at most.
        seed: the same one draws the same rows.
        tokenizer: the encoder's; None cuts nothing.
        prompts: of the encoder.
    """
    available = source.num_near_rows
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(available, size=min(count, available), replace=False))
    labels = source.labels(rows)
    found = []
    for place, texts in enumerate(texts_of_rows(source, rows, prompts)):
        label = None if labels is None else round(float(labels[place]), 6)
        seen = tuple(_seen(text, tokenizer) for text in texts)
        found.append(SeenRow(int(rows[place]), seen, label))
    return tuple(found)


def _seen(read: ReadText, tokenizer: TokenCounter | None) -> SeenText:
    text = read.text
    kept = len(text) if tokenizer is None else kept_characters(tokenizer, text, read.prompt)
    return SeenText(read.column, read.prompt, text[:kept], text[kept:])


def kept_characters(tokenizer: TokenCounter, text: str, prompt: str) -> int:
    """Characters of a text that max_length tokens hold, to within the pieces of a word."""
    if tokenizer.count([text], prompt)[0] <= tokenizer.max_length:
        return len(text)
    low, high = 0, len(text)  # `low` fits, `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        fits = tokenizer.count([text[:middle]], prompt)[0] <= tokenizer.max_length
        low, high = (middle, high) if fits else (low, middle)
    return low
