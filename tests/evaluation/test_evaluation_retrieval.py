"""Retrieval: search, metrics and judgements against sentence-transformers and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer import evaluation as oracle
from sklearn.metrics import ndcg_score
from torchmetrics.functional import retrieval as torchmetrics

from helpers.evaluation_oracle import (
    ALL_FOUR,
    SCORE_FUNCTIONS,
    OracleModel,
    Table,
    assert_same,
    constant,
)
from inbatch.data.sources.load import Source
from inbatch.errors import ConfigError
from inbatch.evaluation import InformationRetrievalEvaluator
from inbatch.evaluation.metrics import Cutoffs, query_metrics
from inbatch.evaluation.retrieval_data import make_retrieval_data, retrieval_data_of_pairs
from inbatch.evaluation.search import hit_keys, hit_ranks, no_hits, search_block

RNG = np.random.default_rng(0)
CORPUS = {f"d{i}": f"document {RNG.integers(0, 250)}" for i in RNG.permutation(300)}
DISTINCT = {key: f"{text} {key}" for key, text in CORPUS.items()}
QUERIES = {f"q{i}": f"query {i}" for i in range(40)}
JUDGEMENTS = {
    (f"q{q}", f"d{d}"): float(RNG.integers(0, 4))
    for q in range(0, 40, 2)
    for d in RNG.choice(300, 5, replace=False)
}
RELEVANT: dict[str, set[str]] = {}
for (_query, _document), _grade in JUDGEMENTS.items():
    if _grade > 0:
        RELEVANT.setdefault(_query, set()).add(_document)


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("chunk", [7, 150, 50_000])
@pytest.mark.parametrize("similarity", [["cosine"], ALL_FOUR])
def test_equals_sentence_transformers(grid, chunk, similarity):
    # Scores of integers are exact, so that ties are ties for both; elsewhere texts must differ.
    table = Table(dim=4 if grid else 16, grid=grid)
    corpus = CORPUS if grid else DISTINCT
    if grid:
        similarity = ["dot", *(s for s in similarity if s != "cosine" and s != "dot")]
    data = make_retrieval_data(QUERIES, corpus, JUDGEMENTS)
    ours = InformationRetrievalEvaluator(
        data, name="dev", similarity=similarity, corpus_chunk_size=chunk
    )
    theirs = oracle.InformationRetrievalEvaluator(
        QUERIES,
        corpus,
        RELEVANT,
        name="dev",
        score_functions={name: SCORE_FUNCTIONS[name] for name in similarity},
        main_score_function=similarity[0],
    )
    assert_same(ours(table), theirs(OracleModel(table)))
    assert ours.primary_metric == theirs.primary_metric
    assert ours.description == theirs.description


def test_metrics_are_named_without_a_call():
    data = make_retrieval_data(QUERIES, DISTINCT, JUDGEMENTS)
    evaluator = InformationRetrievalEvaluator(data, name="dev", similarity=ALL_FOUR, map_at_k=[5])
    assert list(evaluator.metric_names()) == list(evaluator(Table(dim=4)))
    assert evaluator.primary_metric in evaluator.metric_names()


def test_other_cutoffs_and_truncation_equal_sentence_transformers():
    table = Table()
    cutoffs = {
        "accuracy_at_k": [2],
        "precision_recall_at_k": [4, 8],
        "ndcg_at_k": [5, 20],
        "mrr_at_k": [3],
        "map_at_k": [2, 400],
    }
    data = make_retrieval_data(QUERIES, DISTINCT, JUDGEMENTS)
    ours = InformationRetrievalEvaluator(data, truncate_dim=3, **cutoffs)
    theirs = oracle.InformationRetrievalEvaluator(
        QUERIES,
        DISTINCT,
        RELEVANT,
        truncate_dim=3,
        score_functions={"cosine": SCORE_FUNCTIONS["cosine"]},
        **cutoffs,
    )
    assert_same(ours(table), theirs(OracleModel(table)))
    assert ours.primary_metric == "cosine_ndcg@20"


def test_hits_are_ordered_by_score_then_id_whatever_the_blocks():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randint(-1, 2, (9, 3), generator=generator).float()
    documents = torch.randint(-1, 2, (200, 3), generator=generator).float()
    ranks = torch.randperm(200, generator=generator)
    scores = queries @ documents.T
    expected = [
        sorted(range(200), key=lambda d: (-row[d], ranks[d]))[:20] for row in scores.tolist()
    ]
    for block in (1, 13, 20, 199, 200):
        keys = no_hits(9, 20)
        for part in torch.randperm(200, generator=generator).split(block):
            keys = search_block(keys, queries, documents[part], ranks[part], similarity="dot")
        assert torch.equal(hit_ranks(keys), ranks[torch.tensor(expected)])


def test_signs_and_zeros_of_scores_are_ordered_and_missing_hits_are_marked():
    documents = torch.tensor([[-0.0], [0.0], [-2.0], [3.0], [1e-40]])
    ranks = torch.tensor([1, 0, 2, 3, 4])
    keys = search_block(no_hits(1, 7), torch.ones(1, 1), documents, ranks, similarity="dot")
    assert hit_ranks(keys).tolist() == [[3, 4, 0, 1, 2, -1, -1]]
    keys = hit_keys(torch.tensor([-0.0, 0.0]), torch.tensor([1, 1]))
    assert keys[0] == keys[1]  # some kernels round a negative product to -0.0


def test_search_does_not_lose_float32_to_the_precision_of_training():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        search_block(
            no_hits(1, 1), torch.ones(1, 4), torch.ones(3, 4), torch.arange(3), similarity="cosine"
        )
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_metrics_equal_those_of_torchmetrics_and_scikit_learn():
    rng = np.random.default_rng(2)
    grades = rng.integers(0, 4, (30, 60)) * (rng.random((30, 60)) < 0.2)
    grades[:, 0] = 1
    scores = rng.permuted(np.tile(np.arange(1.0, 61.0), (30, 1)), axis=1)
    gains = np.take_along_axis(grades, np.argsort(-scores, axis=1), axis=1).astype(float)
    ours = query_metrics(
        gains,
        ideal_QK=-np.sort(-gains, axis=1),
        num_relevant_Q=(grades > 0).sum(axis=1),
        cutoffs=Cutoffs((5,), (5,), (10,), (10,), (60,)),
    )
    ours = {key: values.mean() for key, values in ours.items()}
    assert ours["ndcg@10"] == pytest.approx(ndcg_score(grades, scores, k=10))
    rows = [(torch.tensor(s), torch.tensor(g > 0)) for s, g in zip(scores, grades)]
    for key, function, k in (
        ("accuracy@5", torchmetrics.retrieval_hit_rate, 5),
        ("precision@5", torchmetrics.retrieval_precision, 5),
        ("recall@5", torchmetrics.retrieval_recall, 5),
        ("mrr@10", torchmetrics.retrieval_reciprocal_rank, 10),
        ("map@60", torchmetrics.retrieval_average_precision, 60),
    ):
        mean = np.mean([function(s, g, top_k=k).item() for s, g in rows])
        assert ours[key] == pytest.approx(mean), key


def test_average_precision_is_1_when_all_hits_up_to_the_cutoff_are_relevant():
    metrics = query_metrics(
        np.array([[1.0, 1.0, 0.0]]),
        ideal_QK=np.ones((1, 3)),
        num_relevant_Q=np.array([3]),
        cutoffs=Cutoffs((1,), (1,), (1,), (1,), (2, 3)),
    )
    assert metrics["map@2"] == 1.0
    assert metrics["map@3"] == pytest.approx(2 / 3)


def test_grades_count_in_graded_ndcg_only():
    queries, corpus = {"q": "query"}, {"a": "1", "b": "2", "c": "3"}
    table = {"query": [1.0, 0.0], "1": [0.9, 0.0], "2": [0.8, 0.0], "3": [0.7, 0.0]}

    def encode(texts, *, role):
        return torch.tensor([table[text] for text in texts])

    data = make_retrieval_data(queries, corpus, {("q", "a"): 1, ("q", "b"): 3, ("q", "c"): 0})
    graded = InformationRetrievalEvaluator(data, graded=True, similarity="dot")(encode)
    plain = InformationRetrievalEvaluator(data, similarity="dot")(encode)
    dcg, ideal = 1 + 3 / np.log2(3), 3 + 1 / np.log2(3)
    assert graded.pop("dot_ndcg@10") == pytest.approx(dcg / ideal)
    assert plain.pop("dot_ndcg@10") == 1.0
    assert graded == plain
    assert plain["dot_recall@3"] == 1.0


def test_pairs_search_positives_among_distinct_texts():
    columns = {
        "query": ["q1", "q2", "q1"],
        "positive": ["p1", "p2", "p3"],
        "negative": ["n", "p1", "n"],
    }
    data = retrieval_data_of_pairs(list(columns.values()), None)
    assert data.queries == ["q1", "q2"]
    assert data.corpus == ["p1", "p2", "p3", "n"]
    assert data.num_relevant.tolist() == [2, 1]
    evaluator = InformationRetrievalEvaluator(Source.from_columns("pairs", columns), limit=1)
    assert evaluator.data.queries == ["q1"]
    assert evaluator.data.corpus == data.corpus
    many = retrieval_data_of_pairs([["q"] * 12, [f"p{i}" for i in range(12)]], None)
    assert many.ranks.tolist() == list(range(12))
    graded = retrieval_data_of_pairs([["q", "q"], ["p", "r"]], np.array([0.0, 2.0]))
    assert graded.num_relevant.tolist() == [1]
    assert graded.ideal_gains(3).tolist() == [[2.0, 0.0, 0.0]]


def test_a_missing_hit_is_not_relevant():
    data = make_retrieval_data(
        {"q": "1", "r": "2"}, {"a": "3", "b": "4"}, {("q", "b"): 1, ("r", "a"): 1}
    )
    assert data.gains(np.array([[1, -1], [-1, 0]])).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_each_document_text_is_embedded_once():
    table = Table()
    data = make_retrieval_data(QUERIES, CORPUS, JUDGEMENTS)
    InformationRetrievalEvaluator(data, corpus_chunk_size=300)(table)
    (queries, first), (documents, second) = table.calls
    assert (first, second) == ("query", "document")
    assert len(queries) == len(RELEVANT)
    assert sorted(documents) == sorted(set(CORPUS.values()))
    table = Table()
    InformationRetrievalEvaluator(data, corpus_chunk_size=100)(table)
    assert all(len(texts) <= 100 for texts, _ in table.calls)
    # A text whose copies lie on both sides of a boundary comes twice.
    assert sum(len(texts) for texts, _ in table.calls[1:]) <= len(documents) + 2


def test_metrics_of_a_diverged_model_are_nan():
    evaluator = InformationRetrievalEvaluator(make_retrieval_data(QUERIES, CORPUS, JUDGEMENTS))
    metrics = evaluator(constant(math.nan))
    assert set(metrics) == set(evaluator(Table()))
    assert all(math.isnan(value) for value in metrics.values())


@pytest.mark.parametrize(
    ("judgements", "message"),
    [
        ({("q0", "d1"): 0.0}, "gives no judgement a grade above 0"),
        (
            {("x", "d1"): 1.0},
            "of the query 'x', and none of a query that is among the 40 ids",
        ),
        (
            {("q0", "1"): 1.0},
            "of the document '1', and none of a document that is among the 300",
        ),
    ],
)
def test_judgements_that_cannot_be_used_are_refused(judgements, message):
    with pytest.raises(ConfigError, match=message):
        make_retrieval_data(QUERIES, CORPUS, judgements)


@pytest.mark.parametrize(
    "options",
    [
        {"ndcg_at_k": []},
        {"map_at_k": [0]},
        {"corpus_chunk_size": 0},
        {"device": "gpu"},
        pytest.param(
            {"device": "cuda"},
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="needs no CUDA device"),
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused(options):
    data = make_retrieval_data(QUERIES, CORPUS, JUDGEMENTS)
    (key,) = options
    with pytest.raises(ConfigError, match=f"evaluation.evaluators.dev.{key}="):
        InformationRetrievalEvaluator(data, name="dev", **options)
