"""EmbeddingSimilarity, Triplet and BinaryClassification against sentence-transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers.sentence_transformer import evaluation as oracle

from helpers.evaluation_oracle import (
    ALL_FOUR,
    OracleModel,
    Table,
    assert_same,
    constant,
    text_columns,
)
from inbatch.data.sources.load import Source
from inbatch.errors import ConfigError
from inbatch.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    TripletEvaluator,
)
from inbatch.evaluation.metrics import binary_metrics, correlations

FIRST, SECOND, THIRD = text_columns(150, 3)
GRADES = np.random.default_rng(1).integers(0, 6, 150) / 5
LABELS = (GRADES > 0.5).astype(int)


def pairs(labels: Any) -> Source:
    columns = {"sentence1": FIRST, "sentence2": SECOND, "label": list(labels)}
    return Source.from_columns("pairs", columns)


def triplets() -> Source:
    return Source.from_columns("triplets", {"anchor": FIRST, "positive": SECOND, "negative": THIRD})


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("similarity", [["cosine"], ["euclidean"], ALL_FOUR])
@pytest.mark.parametrize("name", ["", "dev"])
def test_embedding_similarity_equals_sentence_transformers(grid, similarity, name):
    table = Table(dim=4 if grid else 16, grid=grid)
    ours = EmbeddingSimilarityEvaluator(pairs(GRADES), name=name, similarity=similarity)
    theirs = oracle.EmbeddingSimilarityEvaluator(
        FIRST, SECOND, GRADES.tolist(), name=name, similarity_fn_names=similarity
    )
    assert_same(ours(table), theirs(OracleModel(table)))
    assert ours.primary_metric == theirs.primary_metric
    assert ours.description == theirs.description


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("similarity", [["dot"], ALL_FOUR])
@pytest.mark.parametrize("margin", [0.0, 0.3, {"cosine": 0.1, "euclidean": 0.5}])
def test_triplet_equals_sentence_transformers(grid, similarity, margin):
    table = Table(dim=4 if grid else 16, grid=grid)
    ours = TripletEvaluator(triplets(), name="dev", similarity=similarity, margin=margin)
    theirs = oracle.TripletEvaluator(
        FIRST, SECOND, THIRD, name="dev", similarity_fn_names=similarity, margin=margin
    )
    assert_same(ours(table), theirs(OracleModel(table)))
    assert ours.primary_metric == theirs.primary_metric
    assert ours.description == theirs.description


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("similarity", [["cosine"], ["manhattan"], ALL_FOUR])
def test_binary_classification_equals_sentence_transformers(grid, similarity):
    table = Table(dim=4 if grid else 16, grid=grid)
    ours = BinaryClassificationEvaluator(pairs(LABELS), name="dev", similarity=similarity)
    theirs = oracle.BinaryClassificationEvaluator(
        FIRST, SECOND, LABELS.tolist(), name="dev", similarity_fn_names=similarity
    )
    assert_same(ours(table), theirs(OracleModel(table)))
    assert ours.primary_metric == theirs.primary_metric
    assert ours.description == theirs.description


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0]])
@pytest.mark.parametrize("scores", [[1, 1, 1, 1], [4, 3, 2, 1], [2, 2, 1, 1], [0, 0, 0, -0.0]])
def test_thresholds_of_few_scores_equal_sentence_transformers(labels, scores):
    labels, scores = np.array(labels), np.array(scores, dtype=np.float32)
    ours = binary_metrics(labels, scores)
    find = oracle.BinaryClassificationEvaluator
    accuracy = find.find_best_acc_and_threshold(scores, labels, True)
    assert (ours["accuracy"], ours["accuracy_threshold"]) == pytest.approx(accuracy, abs=0)
    f1 = find.find_best_f1_and_threshold(scores, labels, True)
    keys = ("f1", "precision", "recall", "f1_threshold")
    assert tuple(ours[key] for key in keys) == pytest.approx(f1, abs=0)


def test_a_threshold_between_neighbouring_floats_parts_them():
    low = np.float32(1)
    scores = np.array([np.nextafter(low, np.float32(2)), low])
    metrics = binary_metrics(np.array([1, 0]), scores)
    assert metrics["accuracy"] == metrics["mcc"] == 1.0
    assert metrics["f1_threshold"] > low


def test_truncated_embeddings_equal_sentence_transformers():
    table = Table()
    ours = TripletEvaluator(triplets(), truncate_dim=5)
    theirs = oracle.TripletEvaluator(
        FIRST, SECOND, THIRD, truncate_dim=5, similarity_fn_names=["cosine"]
    )
    assert_same(ours(table), theirs(OracleModel(table)))
    assert ours(table) != TripletEvaluator(triplets())(table)


def test_each_text_is_embedded_once_in_its_role():
    table = Table()
    TripletEvaluator(triplets())(table)
    (queries, query_role), (documents, document_role) = table.calls
    assert (query_role, document_role) == ("query", "document")
    assert sorted(queries) == sorted(set(FIRST))
    assert sorted(documents) == sorted({*SECOND, *THIRD})
    table = Table()
    EmbeddingSimilarityEvaluator(pairs(GRADES), role="query")(table)
    ((texts, role),) = table.calls
    assert role == "query"
    assert sorted(texts) == sorted({*FIRST, *SECOND})


@pytest.mark.parametrize(
    "evaluator",
    [
        EmbeddingSimilarityEvaluator(pairs(GRADES), similarity=ALL_FOUR),
        TripletEvaluator(triplets(), similarity=ALL_FOUR),
        BinaryClassificationEvaluator(pairs(LABELS), similarity=ALL_FOUR),
    ],
)
def test_metrics_of_a_diverged_model_are_nan(evaluator):
    assert set(evaluator(constant(math.nan))) == set(evaluator(Table()))
    assert sorted(evaluator.metric_names()) == sorted(evaluator(Table()))
    assert evaluator.primary_metric in evaluator.metric_names()
    assert all(math.isnan(value) for value in evaluator(constant(math.nan)).values())


def test_a_collapsed_model_has_no_correlation_and_no_accuracy():
    metrics = EmbeddingSimilarityEvaluator(pairs(GRADES))(constant(0.5))
    assert all(math.isnan(value) for value in metrics.values())
    assert TripletEvaluator(triplets())(constant(0.5)) == {"cosine_accuracy": 0.0}


@pytest.mark.parametrize("similarity", [["cosine"], ["euclidean"], ["manhattan"]])
def test_rounding_is_no_ranking(similarity):
    """Cosines of equal texts differ in their last bits, which say nothing."""
    equal = Source.from_columns(
        "equal", {"sentence1": FIRST, "sentence2": FIRST, "label": GRADES.tolist()}
    )
    table = Table(dim=384)
    metrics = EmbeddingSimilarityEvaluator(equal, similarity=similarity)(table)
    assert all(math.isnan(value) for value in metrics.values()), metrics
    equal = Source.from_columns(
        "equal", {"sentence1": FIRST, "sentence2": FIRST, "label": LABELS.tolist()}
    )
    metrics = BinaryClassificationEvaluator(equal, similarity=similarity)(table)
    assert metrics[f"{similarity[0]}_ap"] == pytest.approx(LABELS.mean())
    assert metrics[f"{similarity[0]}_mcc"] == 0.0


def test_small_differences_are_a_ranking():
    scores = np.float32(0.9) + np.arange(150, dtype=np.float32) * np.float32(1e-6)
    assert correlations(np.arange(150), scores)["spearman"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: TripletEvaluator(triplets(), similarity="cos"),
            "evaluation.evaluators.triplet.similarity='cos' is not known: did you mean 'cosine'?",
        ),
        (lambda: TripletEvaluator(triplets(), similarity=[]), "does not name each function once"),
        (
            lambda: TripletEvaluator(triplets(), similarity=["dot", "dot"]),
            "does not name each function once",
        ),
        (
            lambda: TripletEvaluator(triplets(), margin={"cos": 1.0}),
            "margin.cos is not a similarity",
        ),
        (lambda: TripletEvaluator(triplets(), truncate_dim=0), "truncate_dim=0 is below 1"),
        (lambda: TripletEvaluator(triplets(), limit=0), "limit=0 is below 1"),
        (
            lambda: TripletEvaluator(pairs(GRADES), name="dev"),
            "evaluators.dev.columns gives 2 text columns where query, positive and one negative",
        ),
        (lambda: EmbeddingSimilarityEvaluator(triplets()), "3 text columns where query and pos"),
        (lambda: EmbeddingSimilarityEvaluator(pairs([0.5] * 150)), "0.5 for all 150 labels"),
        (
            lambda: EmbeddingSimilarityEvaluator(
                Source.from_columns("p", {"query": FIRST, "positive": SECOND})
            ),
            "no column has a known label name",
        ),
        (lambda: BinaryClassificationEvaluator(pairs(GRADES)), "labels with the value 0.2"),
        (lambda: BinaryClassificationEvaluator(pairs([1] * 150)), "1 for all 150 labels"),
        (lambda: TripletEvaluator("nowhere/dev.parquet"), "nowhere/dev.parquet' matches no file"),
        (
            lambda: TripletEvaluator(triplets(), columns={"query": "anchor"}),
            "a source that is loaded",
        ),
    ],
)
def test_mistakes_are_one_sentence(build, message):
    with pytest.raises(ConfigError) as caught:
        build()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_come_from_files(tmp_path: Path):
    path = tmp_path / "dev.tsv"
    rows = ["a\tb\tc\tn", "red\tblue\t0.5\t00", "green\tgrey\t1\t1", "black\twhite\t0\t2"]
    path.write_text("\n".join(rows) + "\n")
    columns = {"query": "b", "positive": "a", "label": "c"}
    evaluator = EmbeddingSimilarityEvaluator(str(path), columns=columns)
    assert evaluator.first == ["blue", "grey", "white"]
    assert evaluator.labels.tolist() == [0.5, 1.0, 0.0]
    limited = EmbeddingSimilarityEvaluator({"path": str(path), "columns": columns}, limit=2)
    assert limited.second == ["red", "green"]
    with pytest.raises(ConfigError, match=r"limit is given inside"):
        EmbeddingSimilarityEvaluator({"path": str(path), "limit": 1}, columns=columns, limit=2)
    with pytest.raises(ConfigError, match=r"dev\.path\.prompts=.* has an effect in retrieval"):
        EmbeddingSimilarityEvaluator(
            {"path": str(path), "prompts": {"query": "q: "}}, columns=columns, name="dev"
        )
