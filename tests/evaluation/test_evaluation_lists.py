"""Evaluation on rows with lists of positives and negatives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.evaluation_oracle import Table
from inbatch.errors import ConfigError
from inbatch.evaluation import InformationRetrievalEvaluator, TripletEvaluator, evaluator_for

ROWS = [
    {"query": "q1", "pos": ["a", "b"], "neg": ["c"]},
    {"query": "q2", "pos": ["c"], "neg": []},
    {"query": "q1", "pos": ["d"], "neg": ["a", "e"]},
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    place = tmp_path / "lists.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(place)


def test_every_query_looks_for_all_its_positives_among_all_documents(path: str) -> None:
    columns = {"query": "query", "positive": "pos", "negatives": "neg"}
    evaluator = evaluator_for(path, columns=columns)
    assert isinstance(evaluator, InformationRetrievalEvaluator)
    data = evaluator.data
    assert (data.queries, data.corpus) == (["q1", "q2"], ["a", "b", "c", "d", "e"])
    assert data.gains(data.ranks[None].repeat(2, axis=0)).tolist() == [
        [1, 1, 0, 1, 0],
        [0, 0, 1, 0, 0],
    ]
    assert evaluator(Table())["eval_cosine_recall@10"] == 1.0
    assert InformationRetrievalEvaluator(path, columns=columns, limit=1).data.queries == ["q1"]
    with pytest.raises(ConfigError, match="has lists of documents, which only retrieval takes"):
        TripletEvaluator(path, columns=columns)
