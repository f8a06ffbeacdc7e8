"""Reranking: the numbers of sentence-transformers, ties, blocks, rows in columns and lists."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.evaluation import RerankingEvaluator as Theirs
from sklearn.metrics import average_precision_score, ndcg_score

from helpers.evaluation_oracle import OracleModel, Table, assert_same
from helpers.tiny import tiny_texts
from inbatch.cli.overrides import complete_overrides
from inbatch.config.check_judging import check_evaluate
from inbatch.config.composition import compose
from inbatch.config.schema import CONF
from inbatch.errors import ConfigError
from inbatch.evaluation import (
    InformationRetrievalEvaluator,
    RerankingEvaluator,
    evaluator_for,
    reranking,
)
from inbatch.evaluation.metrics import reranking_metrics
from inbatch.run.judging import make_evaluators


def lists() -> list[dict[str, Any]]:
    """Rows with 1 to 3 positives and 0 to 12 negatives, of texts that occur in several rows."""
    rng, texts = np.random.default_rng(0), tiny_texts(60, seed=3)
    rows = []
    for number in range(24):
        picked = rng.permutation(60)[: 1 + number % 3 + number % 13]
        documents = [texts[place] for place in picked]
        split = 1 + number % 3
        query = f"query {number} {texts[number]}"
        rows.append({"query": query, "positive": documents[:split], "negative": documents[split:]})
    return rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in lists()))
    return file


def test_metrics_equal_those_of_sentence_transformers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table()
    expected = Theirs(lists(), name="dev", write_csv=False, at_k=5)(OracleModel(table))  # type: ignore[arg-type]
    ours = RerankingEvaluator(str(path), name="dev", at_k=5)
    whole = ours(table)
    assert_same(whole, expected)
    assert tuple(whole) == ours.metric_names()
    assert ours.primary_metric == "dev_ndcg@5"
    assert ours.sample().value == pytest.approx(whole["dev_ndcg@5"])  # type: ignore[union-attr]
    monkeypatch.setattr(reranking, "BLOCK_DOCUMENTS", 9)  # rows of one block have at most so many
    assert ours(table) == whole
    rows = ours.evaluated_rows()
    assert rows.size == len(ours.data.queries) < 24
    assert rows.notes == ("2 rows without a positive or without a negative, left out",)


def test_a_set_may_ask_for_reranking_by_name(path: Path) -> None:
    assert not isinstance(evaluator_for(str(path)), RerankingEvaluator)  # lists are retrieval
    set_ = evaluator_for({"path": str(path), "task": "reranking"}, name="dev")
    assert isinstance(set_, RerankingEvaluator)
    with pytest.raises(
        ConfigError, match=r"data.eval.dev.task='rerank' is not known: did you mean"
    ):
        evaluator_for({"path": str(path), "task": "rerank"}, name="dev")


def test_all_sets_by_name_may_be_reranked(path: Path) -> None:
    words = (
        *(
            "evaluation=reranking",
            "encoder.model=none",
            "evaluation.evaluators.eval.similarity=dot",
        ),
        *(f"data.eval.a={path}", f"data.eval.b.path={path}", "data.eval.b.columns.query=query"),
        *(f"data.eval.c.path={path}", "data.eval.c.task=retrieval"),
    )
    run = check_evaluate(compose("evaluate", complete_overrides(words, CONF)))
    a, b, c = make_evaluators(run.evaluation.evaluators)
    assert [each.name for each in (a, b, c)] == ["a", "b", "c"]
    for each in (a, b):
        assert isinstance(each, RerankingEvaluator)
        assert each.similarity == ("dot",)
    assert isinstance(c, InformationRetrievalEvaluator)
    assert a(Table()) == {key.replace("b_", "a_", 1): value for key, value in b(Table()).items()}


def test_columns_are_candidates_too(tmp_path: Path) -> None:
    a, b, c, d = (tiny_texts(10, seed=seed) for seed in range(4))
    names = ("query", "positive", "negative", "negative_2")
    rows = [dict(zip(names, row)) for row in zip(a, b, c, d)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table, columns = Table(), {"query": "query", "positive": "positive"}
    ours = RerankingEvaluator(
        str(file), columns=columns | {"negatives": ["negative", "negative_2"]}
    )
    samples = [{"query": q, "positive": [p], "negative": [n, m]} for q, p, n, m in zip(a, b, c, d)]
    assert_same(ours(table), Theirs(samples, write_csv=False)(OracleModel(table)))  # type: ignore[arg-type]


def test_equal_scores_count_as_in_scikit_learn_and_never_for_the_model() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores = rng.integers(0, 4, 12).astype(np.float32)
        relevant = np.arange(12) < rng.integers(1, 12)
        precision, reciprocal, gain = reranking_metrics(scores, relevant, k=5)
        assert precision == pytest.approx(average_precision_score(relevant, scores))
        assert gain == pytest.approx(ndcg_score([relevant], [scores], k=5))
        best = scores[relevant].max()
        place = 1 + (scores[~relevant] >= best).sum()
        assert reciprocal == (1 / place if place <= 5 else 0.0)


def test_embeddings_that_are_not_finite_have_no_metrics(path: Path) -> None:
    def broken(texts: Any, *, role: str | None) -> torch.Tensor:
        return torch.full((len(texts), 4), math.nan)

    evaluator = RerankingEvaluator(str(path))
    assert all(math.isnan(value) for value in evaluator(broken).values())
    assert evaluator.sample() is None


def test_rows_without_negatives_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"query": "red", "positive": "phone"}\n')
    with pytest.raises(ConfigError, match="has no row with a positive and a negative"):
        RerankingEvaluator(str(file))
