"""The exact search against every score in float64, with ties and equal documents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inbatch.errors import ConfigError
from inbatch.mining import search as searched
from inbatch.mining.search import search
from inbatch.mining.vectors import ArrayVectors, JoinedVectors, Vectors

CPU = torch.device("cpu")


def oracle(
    queries: np.ndarray, documents: np.ndarray, k: int, *, normalize: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and float32 scores of the k best by float64 scores, equal ones by their number."""
    q, d = queries.astype(np.float64), documents.astype(np.float64)
    if normalize:
        q, d = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (q, d))
    scores = (q[:, None] * d[None]).sum(-1).astype(np.float32)
    numbers = np.broadcast_to(np.arange(len(d)), scores.shape)
    order = np.lexsort((numbers, -scores), axis=1)[:, :k]
    return order, np.take_along_axis(scores, order, 1)


def found(queries: np.ndarray, documents: Vectors, k: int, *, normalize: bool) -> searched.Hits:
    return search(queries, documents, k, normalize=normalize, device=CPU)


@pytest.mark.parametrize("normalize", [True, False], ids=["cosine", "dot"])
@pytest.mark.parametrize(
    ("num_documents", "k"), [(1, 3), (70, 70), (2048, 5), (5000, 40), (9001, 100)], ids=str
)
def test_the_best_are_those_of_float64(num_documents: int, k: int, normalize: bool) -> None:
    generator = np.random.default_rng(num_documents)
    documents = generator.normal(size=(num_documents, 8)).astype(np.float32)
    documents[generator.integers(num_documents, size=num_documents // 3)] = documents[0]
    queries = generator.normal(size=(7, 8)).astype(np.float32)
    queries[0] = documents[-1]
    hits = found(queries, ArrayVectors(documents), k, normalize=normalize)
    numbers, scores = oracle(queries, documents, k, normalize=normalize)
    np.testing.assert_allclose(hits.scores, scores, rtol=0, atol=2e-7 * np.abs(scores).max())
    unequal = hits.numbers != numbers
    # Scores that float64 sums in another order may differ by a last digit, and change places.
    swapped = np.abs(hits.scores - scores)[unequal]
    assert unequal.mean() < 0.02
    assert (swapped <= 2e-7 * np.abs(scores).max()).all()


def test_equal_scores_are_in_the_order_of_their_numbers() -> None:
    generator = np.random.default_rng(3)
    documents = generator.integers(-1, 2, size=(7000, 5)).astype(
        np.float32
    )  # 243 kinds, exact scores
    queries = generator.integers(-2, 3, size=(9, 5)).astype(np.float32)
    hits = found(queries, ArrayVectors(documents), 300, normalize=False)
    numbers, scores = oracle(queries, documents, 300, normalize=False)
    np.testing.assert_array_equal(hits.numbers, numbers)
    np.testing.assert_array_equal(hits.scores, scores)


def test_documents_that_get_better_and_better() -> None:
    """Every tile has more hits than the buffer keeps."""
    documents = np.linspace(0.1, 1, 6500, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    hits = found(np.ones((2, 3), np.float32), ArrayVectors(documents), 10, normalize=False)
    assert hits.numbers.tolist() == [list(range(6499, 6489, -1))] * 2


def test_sizes_of_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    documents = ArrayVectors(generator.normal(size=(3000, 24)).astype(np.float16))
    queries = generator.normal(size=(40, 24)).astype(np.float32)
    whole = found(queries, documents, 20, normalize=True)
    monkeypatch.setattr(searched, "TILE", 256)
    monkeypatch.setattr(searched, "BLOCK", 512)
    for part in (np.s_[:7], np.s_[7:40]):
        some = found(queries[part], documents, 20, normalize=True)
        np.testing.assert_array_equal(some.numbers, whole.numbers[part])
        np.testing.assert_array_equal(some.scores, whole.scores[part])


def test_missing_documents_and_zero_rows() -> None:
    hits = found(np.zeros((2, 4), np.float32), ArrayVectors(np.ones((2, 4))), 3, normalize=True)
    assert hits.numbers.tolist() == [[0, 1], [0, 1]]
    assert hits.scores.tolist() == [[0, 0], [0, 0]]


def test_an_embedding_that_is_not_finite_is_refused() -> None:
    documents = ArrayVectors(np.full((3, 4), np.nan, np.float32))
    with pytest.raises(ConfigError, match="not finite"):
        found(np.ones((1, 4), np.float32), documents, 2, normalize=False)


def test_embeddings_of_several_stores_are_one() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    parts = [
        ArrayVectors(rows[:4]),
        ArrayVectors(rows[4:5]),
        ArrayVectors(rows[5:].astype(np.float16)),
    ]
    joined, some = JoinedVectors(parts), np.array([8, 0, 4, 4, 2])
    expected = np.concatenate([rows[:5], rows[5:].astype(np.float16)])
    assert (len(joined), joined.dimension) == (9, 4)
    for start, stop in ((0, 4), (1, 9), (5, 8), (3, 3)):
        np.testing.assert_array_equal(joined.rows(start, stop), expected[start:stop])
    np.testing.assert_array_equal(joined.take(some), expected[some])
    chosen = JoinedVectors(parts, some)
    np.testing.assert_array_equal(chosen.rows(1, 4), expected[some[1:4]])
    np.testing.assert_array_equal(chosen.take(np.array([4, 0])), expected[[2, 8]])
    with pytest.raises(ConfigError, match="4 dimensions, and the encoder 3"):
        JoinedVectors([ArrayVectors(rows), ArrayVectors(rows[:, :3])])
