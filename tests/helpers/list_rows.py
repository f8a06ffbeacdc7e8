"""Made-up rows with lists of documents, and what a batch of them should hold."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from torch import Tensor

from helpers.tiny import tiny_texts
from inbatch.batch.batch import Batch


def list_rows(num_rows: int = 40, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with 1 to 3 positives and 0 to 5 negatives, a third of which are texts of other rows."""
    rng = np.random.default_rng(seed)
    texts = [f"{text} {number}" for number, text in enumerate(tiny_texts(num_rows, seed=seed))]
    shared = texts[: num_rows // 3]

    def some(row: int, kind: str, low: int, high: int) -> list[str]:
        own = [f"{kind} {texts[row]} {place}" for place in range(int(rng.integers(low, high + 1)))]
        return [str(rng.choice(shared)) if rng.random() < 0.3 else text for text in own]

    rows = []
    for row, query in enumerate(texts):
        positives, negatives = some(row, "red", 1, 3), some(row, "blue", 0, 5)
        scores = {
            "pos_scores": [score_of(row, text) for text in positives],
            "neg_scores": [score_of(row, text) for text in negatives],
        }
        rows.append({"query": query, "pos": positives, "neg": negatives, **scores})
    return rows


def score_of(row: int, text: str) -> float | None:
    """A score that differs from document to document, exact in float32; one in eight has none."""
    drawn = zlib.crc32(f"{row} {text}".encode())
    return None if drawn % 8 == 0 else drawn % 4096 / 64


def plain_values(scores: Tensor | np.ndarray | None) -> list[float | None]:
    """Scores as values that can be compared, None for NaN."""
    assert scores is not None
    return [None if value != value else value for value in np.asarray(scores).tolist()]


def texts_of_batch(batch: Batch) -> list[list[int]]:
    """Token ids of all texts in the flat order, from the chunks and the copies."""
    ids: dict[int, list[int]] = {}
    for chunk in batch.chunks:
        for place, tokens, mask in zip(chunk.index.tolist(), chunk.input_ids, chunk.attention_mask):
            ids[place] = tokens[mask.bool()].tolist()
    copies = range(len(ids)) if batch.copies is None else batch.copies.tolist()
    return [ids[place] for place in copies]
