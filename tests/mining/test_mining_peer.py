"""The same negatives as sentence-transformers' `mine_hard_negatives`, for the same embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sentence_transformers.util import (
    cos_sim,
    mine_hard_negatives,
    pairwise_cos_sim,
)

from helpers.mining import mined_rows, miner, training_set
from inbatch.config.mine import MineKeys

QUERIES = [f"query {i}" for i in range(24)]
POSITIVES = [f"positive {i}" for i in range(30)]
CORPUS = [f"document {i}" for i in range(200)]


class Embedded:
    """What `mine_hard_negatives` asks of a model, with given embeddings."""

    device = torch.device("cpu")
    similarity = staticmethod(cos_sim)
    similarity_pairwise = staticmethod(pairwise_cos_sim)

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self._vectors = vectors

    def encode_query(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        rows = np.stack([self._vectors[text] for text in texts])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    encode_document = encode_query


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    """A query is near its positives, which are near many documents."""
    generator = np.random.default_rng(1)
    texts = [*QUERIES, *POSITIVES, *CORPUS]
    rows = generator.normal(size=(len(texts), 12)).astype(np.float32)
    for number in range(len(POSITIVES)):
        rows[len(QUERIES) + number] += rows[number % len(QUERIES)]
    return dict(zip(texts, rows))


PAIRS = {"query": QUERIES, "positive": POSITIVES[: len(QUERIES)]}
SEVERAL = {
    "query": [*QUERIES, *QUERIES[:6], QUERIES[0]],
    "positive": [*POSITIVES[:24], *POSITIVES[24:], POSITIVES[7]],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "range": {"range_min": 3, "range_max": 20},
    "range_with_margin": {"range_min": 2, "range_max": 12, "absolute_margin": 0.1},
    "absolute_margin": {"absolute_margin": 0.2},
    "no_margin": {"absolute_margin": 0.0},
    "relative_margin": {"relative_margin": 0.05},
    "both_margins": {"absolute_margin": 0.1, "relative_margin": 0.3},
    "max_score": {"max_score": 0.4},
    "min_score": {"min_score": 0.3, "num_negatives": 8},
    "all": {"range_min": 1, "relative_margin": 0.1, "max_score": 0.7, "min_score": 0.2},
}


@pytest.mark.parametrize("corpus", [[], CORPUS], ids=["own_texts", "corpus"])
@pytest.mark.parametrize("rows", [PAIRS, SEVERAL], ids=["pairs", "several_positives"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_negatives_are_those_of_the_peer(
    options: dict[str, Any],
    rows: dict[str, list[str]],
    corpus: list[str],
    vectors: dict[str, np.ndarray],
) -> None:
    options = {"num_negatives": 4, **options}
    expected = mine_hard_negatives(
        datasets.Dataset.from_dict(rows),
        Embedded(vectors),
        corpus=[*corpus, corpus[3]] if corpus else None,
        output_format="triplet",
        output_scores=True,
        verbose=False,
        **options,
    )
    keys = MineKeys(output="triplet", **options)
    training = training_set(rows, corpus=[*corpus, corpus[3]] if corpus else ())
    found = mined_rows(miner(training, vectors, keys), keys)
    assert len(found) > 40 or "max_score" in options
    names = ("query", "positive", "negative")
    of_peer = {tuple(row[name] for name in names): row["scores"] for row in expected}
    ours = {
        tuple(row[name] for name in names): (row["positive_score"], row["negative_score"])
        for row in found
    }
    assert ours.keys() == of_peer.keys()
    assert len(ours) == len(found)
    for key, scores in ours.items():
        assert scores == pytest.approx(of_peer[key], abs=2e-6)


def test_tuples_are_those_of_the_peer(vectors: dict[str, np.ndarray]) -> None:
    options: dict[str, Any] = {"num_negatives": 3, "max_score": 0.5}
    expected = mine_hard_negatives(
        datasets.Dataset.from_dict(SEVERAL),
        Embedded(vectors),
        output_format="n-tuple",
        verbose=False,
        **options,
    )
    keys = MineKeys(output="n-tuple", **options)
    training = training_set(SEVERAL)
    found = mined_rows(miner(training, vectors, keys), keys)
    order = lambda rows: sorted(tuple(row.values()) for row in rows)  # noqa: E731
    assert order(found) == order(expected.to_list())
    assert list(found[0]) == ["query", "positive", "negative_1", "negative_2", "negative_3"]
