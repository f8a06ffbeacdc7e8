"""`ContrastiveStep` on lists and on scores of documents, without a run around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.nn.functional import normalize

import inbatch
from inbatch.losses import MarginMSE

ROWS = {
    "query": ["red coat", "blue bag", "green hat"],
    "positive": [["warm red coat", "coat"], ["bag in blue"], ["hat"]],
    "negative": [["blue coat"], [], ["coat", "cap"]],  # "coat" is a positive of the first row
}


def test_known_positives_are_masked_unless_the_user_says_otherwise(tiny_bert: Path) -> None:
    found = {}
    for masked in (None, True, False):
        encoder = inbatch.load_encoder(tiny_bert).train()
        loss = inbatch.losses.MultipleNegativesRanking(mask_duplicates=masked)
        step = inbatch.ContrastiveStep(encoder, loss)
        found[masked] = float(step(step.collate(ROWS)).loss)
    assert found[None] == found[True]
    assert found[False] != pytest.approx(found[True], rel=1e-4)


SCORED: dict[str, dict[str, Any]] = {
    "lists": {
        **ROWS,
        "pos_scores": [[2.0, 1.5], [1.0], [3.0]],
        "neg_scores": [[0.5], [], [0.25, -1.0]],
    },
    "columns": {
        "query": ROWS["query"],
        "positive": ["coat", "bag in blue", "hat"],
        "negative": ["blue coat", "hat", "cap"],
        "positive_score": [2.0, 1.0, 3.0],
        "negative_score": [0.5, 0.25, -1.0],
    },
}


def distances(
    encoder: inbatch.Encoder, query: Tensor, texts: list[str], scores: Any
) -> list[float]:
    """What the cosines with a query have above the scores."""
    cosines = normalize(encoder.encode(texts), dim=1) @ normalize(query, dim=0) if texts else []
    return [float(cosine) - score for cosine, score in zip(cosines, scores, strict=True)]


@pytest.mark.parametrize("kind", SCORED)
def test_a_loss_of_ones_own_reads_scores(kind: str, tiny_bert: Path) -> None:
    rows = SCORED[kind]
    encoder = inbatch.load_encoder(tiny_bert).train()
    step = inbatch.ContrastiveStep(encoder, MarginMSE(similarity="cosine"), keep_gib=0)
    found = float(step(step.collate(rows, chunk_rows=2)).loss)
    columns = [[v if isinstance(v, list) else [v] for v in values] for values in rows.values()]
    per_row = []
    queries = encoder.encode(rows["query"])
    for query, positives, negatives, high, low in zip(queries, *columns[1:], strict=True):
        near = distances(encoder, query, positives, high)
        far = distances(encoder, query, negatives, low)
        squares = [(p - n) ** 2 for p in near for n in far]
        per_row.append(sum(squares) / len(squares) if squares else 0.0)
    assert found == pytest.approx(sum(per_row) / 3, rel=1e-5)
    bare = {name: values for name, values in rows.items() if "score" not in name}
    with pytest.raises(inbatch.ConfigError, match="needs a score for each document"):
        step(step.collate(bare))
