"""What evaluators say that they evaluate on, for the model card."""

from __future__ import annotations

import pytest

from inbatch.data.sources.load import Source
from inbatch.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    TripletEvaluator,
)
from inbatch.evaluation.base import ShowsRows

TEXTS = {"query": ["a", "b", "a"], "positive": ["c", "d", "e"]}


def source(**more: list[object]) -> Source:
    return Source.from_columns("dev", {**TEXTS, **more})


def test_triplets() -> None:
    evaluator = TripletEvaluator(source(negative=["x", "y", "z"]))
    assert isinstance(evaluator, ShowsRows)
    size, contents, columns, _ = evaluator.evaluated_rows()
    assert (size, contents) == (3, "evaluation samples")
    assert columns == {**TEXTS, "negative": ["x", "y", "z"]}


@pytest.mark.parametrize("kind", [BinaryClassificationEvaluator, EmbeddingSimilarityEvaluator])
def test_labelled_pairs(kind: type) -> None:
    size, contents, columns, notes = kind(source(label=[0, 1, 0])).evaluated_rows()
    assert (size, contents) == (3, "evaluation samples")
    assert columns == {**TEXTS, "label": [0, 1, 0]}
    assert notes == ()


def test_retrieval_shows_queries_with_their_documents() -> None:
    evaluator = InformationRetrievalEvaluator(source(negative=["c", "y", "z"]))
    size, contents, columns, _ = evaluator.evaluated_rows()
    assert (size, contents) == (2, "queries, 5 documents, 3 relevant pairs")
    pairs = zip(columns["query"], columns["relevant document"], strict=True)
    assert sorted(pairs) == [("a", "c"), ("a", "e"), ("b", "d")]
