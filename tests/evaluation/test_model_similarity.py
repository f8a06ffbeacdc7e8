"""Embeddings are compared by the model's own similarity where nothing else is given."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import evaluation as oracle

import inbatch
from helpers.evaluation_oracle import ALL_FOUR, Table, assert_same
from helpers.runs import run_train, write_triplets
from helpers.tiny import tiny_texts
from inbatch.data.sources.load import Source
from inbatch.encoder import build_encoder
from inbatch.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    TripletEvaluator,
)
from inbatch.evaluation.base import follow_model
from inbatch.evaluation.retrieval_data import make_retrieval_data

FIRST, SECOND, THIRD = (tiny_texts(40, seed=seed, min_words=2) for seed in range(3))
SCORES = [(3 * i % 7) / 6 for i in range(40)]
MATCHES = [i % 2 for i in range(40)]


def pairs(labels: list[float]) -> Source:
    return Source.from_columns("dev", {"query": FIRST, "positive": SECOND, "label": labels})


@pytest.mark.parametrize("similarity", ALL_FOUR)
def test_equals_sentence_transformers(tiny_bert: Path, tmp_path: Path, similarity: str) -> None:
    build_encoder(str(tiny_bert), similarity=similarity).save(tmp_path)
    queries = {f"q{i}": text for i, text in enumerate(FIRST)}
    corpus = {f"d{i}": text for i, text in enumerate(dict.fromkeys(SECOND))}
    relevant = {query: {f"d{i}"} for i, query in enumerate(queries) if f"d{i}" in corpus}
    judgements = {(query, document): 1.0 for query, (document,) in relevant.items()}
    data = make_retrieval_data(queries, corpus, judgements)
    triplets = {"query": FIRST, "positive": SECOND, "negative": THIRD}
    metrics = inbatch.evaluate(
        tmp_path,
        [
            EmbeddingSimilarityEvaluator(pairs(SCORES), name="pairs"),
            BinaryClassificationEvaluator(pairs(MATCHES), name="matches"),
            TripletEvaluator(Source.from_columns("dev", triplets), name="triplets"),
            InformationRetrievalEvaluator(data, name="search"),
        ],
    )
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    assert theirs.similarity_fn_name == similarity
    expected: dict[str, float] = {}
    options = {"write_csv": False}
    for evaluator in (
        oracle.EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES, name="pairs", **options),
        oracle.BinaryClassificationEvaluator(FIRST, SECOND, MATCHES, name="matches", **options),
        oracle.TripletEvaluator(FIRST, SECOND, THIRD, name="triplets", **options),
        oracle.InformationRetrievalEvaluator(queries, corpus, relevant, name="search", **options),
    ):
        expected |= evaluator(theirs)
    assert all(similarity in key for key in metrics)
    thresholds = {key for key in expected if key.endswith("_threshold")}
    assert_same(*({k: m[k] for k in m if k not in thresholds} for m in (metrics, expected)))
    for key in thresholds:  # of one kernel or another; scores of dot are in the tens
        assert metrics[key] == pytest.approx(expected[key], rel=1e-5), key


def test_a_similarity_that_is_given_stays() -> None:
    given = TripletEvaluator(
        Source.from_columns("dev", {"query": FIRST, "positive": SECOND, "negative": THIRD}),
        similarity=["cosine"],
    )
    open_ = EmbeddingSimilarityEvaluator(pairs(SCORES))
    assert (given.primary_metric, open_.primary_metric) == ("cosine_accuracy", "spearman_cosine")
    follow_model([given, open_], "dot")
    assert (given.primary_metric, open_.primary_metric) == ("cosine_accuracy", "spearman_dot")
    assert set(open_.metric_names()) == set(open_(Table())) == {"pearson_dot", "spearman_dot"}


def test_a_run_chooses_its_model_by_it_and_the_card_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_triplets(tmp_path / "rows.jsonl", 32)
    output = run_train(
        f"data.train={rows}",
        f"data.eval={rows}",
        "encoder.similarity=dot",
        "global_batch_size=16",
        "trainer.max_epochs=1",
        f"output_dir={tmp_path / 'run'}",
    )
    result = json.loads((output / "result.json").read_text())
    assert result["metric"] == "eval_dot_accuracy"
    log = capsys.readouterr().out
    assert "evaluation.of eval: 32 evaluation samples" in log
    assert "evaluation.model: that of the largest eval_dot_accuracy" in log
    card = (output / "model" / "README.md").read_text()
    assert "- **Similarity Function:** Dot Product" in card
    code = card.split("```python\n")[1].split("```")[0]
    texts = re.findall(r"^    '(.*)',$", code, re.MULTILINE) or re.findall(r'"(.+)",', code)
    model = SentenceTransformer(str(output / "model"), device="cpu")
    embeddings = model.encode(texts)
    printed = re.findall(r"-?\d+\.\d{4}", code.split("print(similarities)")[1])
    expected = model.similarity(embeddings, embeddings).numpy()
    assert len(printed) == expected.size
    assert np.allclose(np.array(printed, dtype=float), expected.ravel(), atol=1e-3)


@pytest.mark.parametrize("similarity", ["cosine", "manhattan", "euclidean"])
def test_equal_texts_have_no_correlation(tiny_bert: Path, similarity: str) -> None:
    same = {"query": FIRST, "positive": FIRST, "label": SCORES}
    evaluator = EmbeddingSimilarityEvaluator(
        Source.from_columns("dev", same), similarity=similarity
    )
    metrics = evaluator(build_encoder(str(tiny_bert)).encode)
    assert all(math.isnan(value) for value in metrics.values())
    (note,) = evaluator.evaluated_rows().notes
    assert note.startswith("every pair is of two equal texts")
