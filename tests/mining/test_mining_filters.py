"""Which documents become negatives, against a plain loop over all of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from helpers.mining import mined_rows, miner, training_set
from inbatch.config.mine import MineKeys
from inbatch.errors import ConfigError
from inbatch.mining.blocks import Miner
from inbatch.mining.filters import REASONS

Vectors = dict[str, np.ndarray]


def case(seed: int, *, ties: bool) -> tuple[dict[str, list[Any]], list[str], Vectors, Vectors]:
    """Rows with repeated queries, positives that are queries, lists, keys; a corpus; two models."""
    generator = np.random.default_rng(seed)
    words = [f"text {i}" for i in range(60)]
    pick = lambda count: [words[i] for i in generator.integers(40, size=count)]  # noqa: E731
    rows = {
        "query": pick(30),
        "positive": [pick(generator.integers(1, 4)) for _ in range(30)],
        "negative": [pick(generator.integers(0, 3)) for _ in range(30)],
        "product": [f"key {i}" for i in generator.integers(12, size=30)],
    }
    models = []
    for _ in range(2):
        vectors = generator.normal(size=(60, 6)).astype(np.float32)
        if ties:
            vectors = generator.integers(-1, 2, size=(60, 4)).astype(np.float32)
        models.append(dict(zip(words, vectors)))
    return rows, words[20:], models[0], models[1]


def expected(
    rows: dict[str, list[Any]],
    corpus: list[str],
    model: Vectors,
    guide: Vectors | None,
    keys: MineKeys,
) -> tuple[dict[str, list[str]], Counter[str]]:
    """Negatives of each query by going through all documents, and why others are none."""
    documents = list(
        dict.fromkeys(
            [
                *corpus,
                *(t for p in rows["positive"] for t in p),
                *(t for n in rows["negative"] for t in n),
            ]
        )
    )
    positives: dict[str, set[str]] = {}
    products: dict[str, set[str]] = {}
    for query, texts, product in zip(rows["query"], rows["positive"], rows["product"]):
        positives.setdefault(query, set()).update(texts)
        for text in (query, *texts):
            products.setdefault(text, set()).add(product)
    own: dict[str, set[str]] = {}
    for query, product in zip(rows["query"], rows["product"]):
        own.setdefault(query, set()).add(product)
    dot = lambda of, a, b: np.float32(of[a].astype(float) @ of[b].astype(float))  # noqa: E731
    found, reasons = {}, Counter[str]()
    for query, known in positives.items():
        best = min(dot(model, query, p) for p in known)
        kept = []
        for text in sorted(documents, key=lambda d: -dot(model, query, d)):  # stable: by number
            score = dot(model, query, text)
            if text == query:
                reason = "query"
            elif text in known:
                reason = "positive"
            elif own[query] & products.get(text, set()):
                reason = "key"
            elif (
                keys.absolute_margin is not None and score + np.float32(keys.absolute_margin) > best
            ):
                reason = "absolute_margin"
            elif keys.margin is not None and score > best - abs(best) * np.float32(keys.margin):
                reason = "relative_margin"
            elif keys.max_score is not None and score > keys.max_score:
                reason = "max_score"
            elif keys.min_score is not None and score < keys.min_score:
                reason = "min_score"
            elif guide is not None and dot(guide, query, text) + np.float32(
                keys.guide_margin or 0
            ) > min(dot(guide, query, p) for p in known):
                reason = "guide"
            else:
                kept.append(text)
                continue
            reasons[reason] += 1
        end = keys.range_max or len(documents)
        reasons["range_min"] += len(kept[: keys.range_min])
        reasons["range_max"] += len(kept[end:])
        found[query] = kept[keys.range_min : end][: keys.num_negatives]
    return found, reasons


LIMITS: dict[str, dict[str, Any]] = {
    "none": {},
    "absolute": {"absolute_margin": 0.5, "range_min": 2},
    "percentage": {"percentage": 80.0},
    "scores": {"max_score": 1.5, "min_score": -2.0},
    "guide": {"guide_margin": 0.25, "range_min": 1},
    "all": {"relative_margin": 0.1, "max_score": 3.0, "min_score": -3.0, "guide_margin": 0.0},
}


@pytest.mark.parametrize("ties", [False, True], ids=["plain", "ties"])
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS.keys())
def test_negatives_are_those_of_a_loop(limits: dict[str, Any], ties: bool) -> None:
    rows, corpus, model, guide = case(len(limits), ties=ties)
    keys = MineKeys(num_negatives=4, range_max=60, block_queries=7, **limits)
    training = training_set(
        rows,
        corpus=corpus,
        mapping={
            "query": "query",
            "positive": "positive",
            "negatives": "negative",
            "key": "product",
        },
    )
    other = guide if keys.guide_margin is not None else None
    mining = miner(training, model, keys, guide=other, normalize=False)
    wanted, reasons = expected(rows, corpus, model, other, keys)
    found = mined_rows(mining, keys)
    assert [row["query"] for row in found] == rows["query"]
    assert [row["positive"] for row in found] == rows["positive"]
    assert [row["key"] for row in found] == rows["product"]
    assert [row["negative"] for row in found] == [wanted[query] for query in rows["query"]]
    scored = guide if other else model
    for row in found:
        for kind in ("positive", "negative"):
            scores = [scored[row["query"]] @ scored[text] for text in row[kind]]
            assert row[f"{kind}_score"] == pytest.approx(scores, abs=1e-5)
    counted = counts(mining)
    assert {name: count for name, count in counted.items() if count} == {
        name: count for name, count in reasons.items() if count
    }


def counts(mining: Miner) -> dict[str, int]:
    """Candidates by the reason for which they were left out."""
    blocks = [mining.mine(number) for number in range(mining.num_blocks)]
    return dict(zip(REASONS, np.sum([block.left_out for block in blocks], axis=0).tolist()))


def test_a_range_ends_the_candidates() -> None:
    rows, corpus, model, _ = case(0, ties=False)
    del rows["product"], rows["negative"]
    keys = MineKeys(num_negatives=50, range_min=3, range_max=9)
    training = training_set(rows, corpus=corpus)
    found = mined_rows(miner(training, model, keys), keys)
    assert {len(row["negative"]) for row in found} == {6}


def test_rows_with_too_few_negatives_are_left_out() -> None:
    rows = {"query": ["a", "b"], "positive": ["c", "d"]}
    vectors = {
        "a": np.array([1, 0]),
        "b": np.array([0, 1]),
        "c": np.array([1, 0.1]),
        "d": np.array([0.5, 0.5]),
    }
    training = training_set(rows)
    for least, left in ((0, [["d"], []]), (1, [["d"]])):
        keys = MineKeys(max_score=0.9, min_score=0.2, min_negatives=least)
        found = mined_rows(miner(training, vectors, keys), keys)
        assert [row["negative"] for row in found] == left


def test_training_sets_that_cannot_be_mined() -> None:
    with pytest.raises(ConfigError, match="has no document that is not a positive: name a corpus"):
        training_set({"query": ["a"], "positive": ["b"]})
    with pytest.raises(ConfigError, match=r"has labels \(label\), and mining takes each positive"):
        training_set({"query": ["a"], "positive": ["b"], "label": [1]})
