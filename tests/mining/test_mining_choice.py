"""What becomes a negative of the candidates that are left, and what it depends on."""

from __future__ import annotations

import numpy as np
import pytest

from inbatch.data.hashing import hash_texts
from inbatch.mining.choice import Choice

NUM = 6
SCORES = np.linspace(0.9, 0.4, NUM, dtype=np.float32)[None]
DOCUMENTS = hash_texts([f"document {i}" for i in range(NUM)])[None]


def shares(how: str, *, num_negatives: int, temperature: float = 0.2) -> np.ndarray:
    """How often each candidate is chosen, over 4,000 queries."""
    queries = hash_texts([f"query {i}" for i in range(4000)])
    choice = Choice(num_negatives=num_negatives, how=how, temperature=temperature)  # type: ignore[arg-type]
    many = [np.repeat(each, len(queries), axis=0) for each in (SCORES, DOCUMENTS)]
    chosen = choice.choose(np.ones(many[0].shape, bool), many[0], queries, many[1])
    assert (chosen.sum(axis=1) == num_negatives).all()
    return chosen.mean(axis=0)


def test_top_takes_the_first_of_those_that_are_kept() -> None:
    kept = np.array([[True, False, True, True, False, True], [False] * 5 + [True]])
    scores, documents = np.repeat(SCORES, 2, 0), np.repeat(DOCUMENTS, 2, 0)
    chosen = Choice(num_negatives=2).choose(kept, scores, hash_texts(["a", "b"]), documents)
    assert chosen.tolist() == [[True, False, True, False, False, False], [False] * 5 + [True]]


def test_random_takes_each_as_often() -> None:
    np.testing.assert_allclose(shares("random", num_negatives=2), 2 / NUM, atol=0.04)


def test_softmax_draws_by_the_softmax_of_the_scores() -> None:
    weights = np.exp(SCORES[0].astype(float) / 0.2)
    first = weights / weights.sum()
    np.testing.assert_allclose(shares("softmax", num_negatives=1), first, atol=0.03)
    # Without replacement: by the weights of what is left behind each first draw.
    second = sum(
        p * np.where(np.arange(NUM) == i, 0, weights) / (weights.sum() - weights[i])
        for i, p in enumerate(first)
    )
    np.testing.assert_allclose(shares("softmax", num_negatives=2), first + second, atol=0.03)


@pytest.mark.parametrize("how", ["random", "softmax"])
def test_a_draw_follows_from_seed_query_and_documents_alone(how: str) -> None:
    queries = hash_texts(["a", "b", "c"])
    scores, documents = np.repeat(SCORES, 3, 0), np.repeat(DOCUMENTS, 3, 0)
    kept = np.ones(scores.shape, bool)
    choice = Choice(num_negatives=2, how=how, temperature=1.0)  # type: ignore[arg-type]
    whole = choice.choose(kept, scores, queries, documents)
    for row in range(3):  # alone, with its candidates the other way round
        part = np.s_[row : row + 1]
        back = np.s_[part, ::-1]
        again = choice.choose(kept[back], scores[back], queries[part], documents[back])
        assert (again[:, ::-1] == whole[part]).all()
    # A candidate less: the others that were chosen stay.
    gone = whole[0].argmax()
    fewer = kept.copy()
    fewer[0, gone] = False
    assert (choice.choose(fewer, scores, queries, documents)[0] >= whole[0])[
        np.arange(NUM) != gone
    ].all()
    others = Choice(num_negatives=2, how=how, temperature=1.0, seed=7)  # type: ignore[arg-type]
    many = hash_texts([f"query {i}" for i in range(50)])
    both = [
        c.choose(
            np.ones((50, NUM), bool), np.repeat(SCORES, 50, 0), many, np.repeat(DOCUMENTS, 50, 0)
        )
        for c in (choice, others)
    ]
    assert (both[0] != both[1]).any()
