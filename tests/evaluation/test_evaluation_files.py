"""Retrieval data from files, and every file of conf/evaluation."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from helpers.evaluation_oracle import Table
from inbatch.errors import ConfigError
from inbatch.evaluation import InformationRetrievalEvaluator

CONF = sorted((Path(__file__).parents[2] / "conf" / "evaluation").glob("*.yaml"))


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A folder in BEIR's layout; numeric ids in one file, the same as texts in the other."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    jsonl(folder / "corpus.jsonl", [{"_id": i, "title": "", "text": f"text {i}"} for i in range(9)])
    jsonl(folder / "queries.jsonl", [{"_id": f"q{i}", "text": f"query {i}"} for i in range(3)])
    lines = ["query-id\tcorpus-id\tscore", "q0\t3\t1", "q0\t4\t2", "q2\t3\t1", "q1\t8\t0"]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_as_beir_lays_it_out(beir: Path):
    evaluator = InformationRetrievalEvaluator(str(beir), name="beir")
    data = evaluator.data
    assert data.query_ids == ["q0", "q2"]
    assert data.corpus == [f"text {i}" for i in range(9)]
    assert data.num_relevant.tolist() == [2, 1]
    assert data.ideal_gains(2).tolist() == [[2.0, 1.0], [1.0, 0.0]]
    metrics = evaluator(Table())
    assert evaluator.primary_metric == "beir_cosine_ndcg@10"
    assert metrics["beir_cosine_recall@10"] == 1.0
    assert InformationRetrievalEvaluator(str(beir), limit=1).data.queries == ["query 0"]


def test_three_files_with_columns_of_any_name(beir: Path, tmp_path: Path):
    queries = tmp_path / "asked.parquet"
    pq.write_table(pa.table({"key": ["a", "b"], "words": ["x", "y"]}), queries)
    qrels = jsonl(tmp_path / "judged.jsonl", [{"who": "b", "what": 8}])
    data = InformationRetrievalEvaluator(
        {"corpus": str(beir / "corpus.jsonl"), "queries": str(queries), "qrels": qrels},
        columns={
            "query_id": "key",
            "query_text": "words",
            "qrels_query_id": "who",
            "qrels_corpus_id": "what",
        },
    ).data
    assert data.queries == ["y"]
    assert data.gains(data.ranks[None, :]).tolist() == [[0.0] * 8 + [1.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "queries.jsonl").unlink(), "holds no file of queries"),
        (
            lambda f: (f / "queries.csv").write_text("_id,text\nq0,a\n"),
            "holds several files of queries",
        ),
        (
            lambda f: jsonl(f / "corpus.jsonl", [{"_id": 1, "text": "a"}, {"_id": 1, "text": "b"}]),
            r"path\.corpus holds the id '1' twice",
        ),
        (
            lambda f: jsonl(f / "corpus.jsonl", [{"_id": 1, "text": 5}]),
            r"path\.corpus has 5 as the text of '1'",
        ),
        (
            lambda f: jsonl(f / "corpus.jsonl", [{"_id": 1, "body": "a"}]),
            r"none of which could be its corpus_text: name one as .*\.columns\.corpus_text",
        ),
        (
            lambda f: jsonl(f / "queries.jsonl", [{"_id": "a", "qid": "b", "text": "c"}]),
            "several of which could be its query_id",
        ),
        (
            lambda f: jsonl(
                f / "queries.jsonl", [{"_id": "q0", "text": "c"}, {"_id": None, "text": "d"}]
            ),
            r"queries\.jsonl' has no id \(null\) in column '_id', line 2: fill it",
        ),
        (
            lambda f: (f / "qrels" / "test.tsv").write_text("qid\tdid\tgrade\nq0\t3\tgood\n"),
            "'good' as the grade of",
        ),
        (
            lambda f: (f / "qrels" / "test.tsv").write_text("qid\tdid\tgrade\nq0\t77\t1\n"),
            "judgements of the document '77'",
        ),
    ],
)
def test_files_that_cannot_be_used_are_refused(beir: Path, change: Any, message: str):
    change(beir)
    with pytest.raises(ConfigError, match=message) as caught:
        InformationRetrievalEvaluator(str(beir))
    assert "\n" not in str(caught.value)


def test_columns_and_parts_that_do_not_exist_are_refused(beir: Path):
    with pytest.raises(ConfigError, match=r"corpus_key is not a valid key.*corpus_text"):
        InformationRetrievalEvaluator(str(beir), columns={"corpus_key": "_id"})
    with pytest.raises(ConfigError, match=r"columns\.corpus_id='id' is not a column"):
        InformationRetrievalEvaluator(str(beir), columns={"corpus_id": "id"})
    with pytest.raises(ConfigError, match="give corpus, queries, qrels"):
        InformationRetrievalEvaluator({"corpus": str(beir / "corpus.jsonl")})


def rows_for(target: str, folder: Path) -> str:
    rows = [
        {"query": f"q{i}", "positive": f"p{i}", "negative": f"n{i}", "label": i % 2}
        for i in range(6)
    ]
    keep = {
        "RerankingEvaluator": ("query", "positive", "negative"),
        "TripletEvaluator": ("query", "positive", "negative"),
        "InformationRetrievalEvaluator": ("query", "positive"),
    }.get(target.rpartition(".")[2], ("query", "positive", "label"))
    return jsonl(folder / "dev.jsonl", [{key: row[key] for key in keep} for row in rows])


@pytest.mark.parametrize("path", CONF, ids=[path.stem for path in CONF])
def test_every_file_of_conf_evaluation_works(path: Path, tmp_path: Path):
    assert path.read_text().startswith("# ")
    conf = OmegaConf.load(path)
    evaluators = conf.pop("evaluators", {})
    assert not conf  # when and how evaluations run has its defaults in the schema
    assert (path.stem == "auto") == (not evaluators)
    for name, node in evaluators.items():
        unresolved = OmegaConf.to_container(node, resolve=False)
        assert unresolved["path"] == "${data.eval}"
        assert unresolved["columns"] == "${data.columns}"
        node.path, node.columns = rows_for(node._target_, tmp_path), None
        signature = inspect.signature(get_class(node._target_))
        assert set(node) - {"_target_"} <= set(signature.parameters)
        evaluator = instantiate(node)
        assert evaluator.name == node.name == name
        metrics = evaluator(Table())
        assert evaluator.primary_metric in metrics
        assert all(type(value) is float for value in metrics.values())
