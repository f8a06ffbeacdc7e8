"""Folders of corpus, queries and judgements as they are published, and the keys that choose among them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.runs import compose_run
from inbatch.config.check import check_config
from inbatch.config.instantiate import instantiate
from inbatch.errors import ConfigError
from inbatch.evaluation import InformationRetrievalEvaluator, evaluator_for
from inbatch.evaluation.plain_tables import find_layout
from inbatch.evaluation.retrieval_data import RetrievalData

QUERIES = {"q1": "query one", "q2": "query two"}
DOCUMENTS = {"1": "one", "2": "two", "3": "three"}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def write_parquet(path: Path, **columns: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def lines(rows: Mapping[str, str], separator: str = "\t") -> str:
    return "".join(f"{key}{separator}{text}\n" for key, text in rows.items())


def jsonl(rows: Mapping[str, str]) -> str:
    return "".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in rows.items())


def read(path: Any, **options: Any) -> RetrievalData:
    found = evaluator_for(path, **options)
    assert isinstance(found, InformationRetrievalEvaluator)
    return found.data


def judged(data: RetrievalData) -> dict[tuple[str, str], float]:
    pairs = (divmod(pair, len(data.ids)) for pair in data.relevant.tolist())
    return {
        (data.query_ids[query], data.ids[rank]): grade
        for (query, rank), grade in zip(pairs, data.grades.tolist())
    }


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Two files of judgements."""
    head = "query-id\tcorpus-id\tscore\n"
    return write(
        tmp_path / "several",
        {
            "corpus.jsonl": jsonl(DOCUMENTS),
            "queries.jsonl": jsonl(QUERIES),
            "qrels/dev.tsv": f"{head}q1\t1\t1\n",
            "qrels/test.tsv": f"{head}q2\t2\t2\nq2\t3\t1\n",
        },
    )


def test_the_advice_for_several_judgements_works(several: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluator_for(str(several))
    assert str(caught.value) == (
        f"data.eval='{several}' holds several judgements (dev, test): "
        "say which to use, as data.eval.split=test beside data.eval=FILE"
    )

    def run(*overrides: str) -> InformationRetrievalEvaluator:
        # A training file is not opened here.
        config = check_config(compose_run("encoder=tiny", "data.train=train.csv", *overrides))
        (node,) = config.evaluation.evaluators.values()
        evaluator = instantiate(node)
        assert isinstance(evaluator, InformationRetrievalEvaluator)
        return evaluator

    one = f"data.eval={several}"
    test = {("q2", "2"): 2.0, ("q2", "3"): 1.0}
    assert judged(run(one, "data.eval.split=test").data) == test
    both = run(one, "data.eval.split=[dev,test]", "data.eval.graded=true")
    assert judged(both.data) == {("q1", "1"): 1.0, **test}
    assert both.graded
    named = run(f"data.eval.faq={several}", "data.eval.faq.split=dev", "data.eval.faq.limit=1")
    assert (judged(named.data), named.name) == ({("q1", "1"): 1.0}, "faq")
    chosen = run(
        one, "data.eval.split=dev", "data.eval.exclude_same_id=true", "evaluation=retrieval"
    )
    assert judged(chosen.data) == {("q1", "1"): 1.0}
    assert chosen.data.left_out is not None
    parts = [f"data.eval.{part}={several}/{part}.jsonl" for part in ("corpus", "queries")]
    assert judged(run(*parts, f"data.eval.qrels={several}/qrels/test.tsv").data) == test


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split": "train"}, r"^data\.eval\.split='train' is not among .*: set one of dev, test"),
        ({"splits": "dev"}, r"^data\.eval\.splits is not a valid key: did you mean 'split'"),
        ({"split": "dev", "exclude_same_id": "yes"}, "exclude_same_id='yes' is not true or false"),
        ({"split": "dev", "limit": 0}, r"^data\.eval\.limit=0 is below 1"),
    ],
)
def test_keys_that_cannot_be_used_are_refused(several: Path, keys: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluator_for({"path": str(several), **keys})


def test_keys_of_a_folder_are_refused_for_rows_and_files(several: Path, tmp_path: Path) -> None:
    rows = write(tmp_path, {"pairs.csv": "query,positive\na,b\n"}) / "pairs.csv"
    with pytest.raises(ConfigError, match="split='dev' belongs to a folder"):
        InformationRetrievalEvaluator(str(rows), split="dev")
    parts = {part: str(several / f"{part}.jsonl") for part in ("corpus", "queries")}
    with pytest.raises(ConfigError, match="and the files are named here: leave it out"):
        evaluator_for({**parts, "qrels": str(several / "qrels" / "dev.tsv"), "split": "dev"})
    with pytest.raises(ConfigError, match="has no qrels: give corpus, queries, qrels"):
        evaluator_for(parts)


def test_titles_and_templates(tmp_path: Path) -> None:
    rows = [
        {"_id": "1", "title": "A", "text": "a", "lang": "en"},
        {"_id": "2", "title": "", "text": " b ", "lang": "de"},
        {"_id": "3", "title": None, "text": "c", "lang": None},
    ]
    files = {
        "corpus.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "queries.tsv": "_id\ttext\tlang\nq1\tquery one\ten\n",
        "qrels.tsv": "query-id\tcorpus-id\tscore\nq1\t1\t1\n",
    }
    folder = str(write(tmp_path / "titles", files))

    def texts(columns: dict[str, str]) -> tuple[list[str], list[str]]:
        data = read({"path": folder, "columns": columns})
        return data.corpus, data.queries

    assert texts({})[0] == ["A a", "b", "c"]
    assert texts({"corpus_text": "text"})[0] == ["a", " b ", "c"]
    both = {"corpus_text": "{lang}: {text} ({title})", "query_text": "{lang} {text}"}
    assert texts(both) == (["en: a (A)", "de:  b  ()", ": c ()"], ["en query one"])
    with pytest.raises(ConfigError, match=r"names 'titel', which is not a column.*'title'"):
        texts({"corpus_text": "{titel} {text}"})


def test_ms_marco(tmp_path: Path) -> None:
    """Files without a header; a quote is a character, and judgements have four columns."""
    corpus = {"1": 'a 5" disk', "2": '"quoted" text', "3": "three"}
    folder = write(
        tmp_path / "marco",
        {
            "collection.tsv": lines(corpus),
            "queries.dev.tsv": lines({"11": "query one"}),
            "queries.train.tsv": lines({"12": "query two"}),
            "qrels.dev.small.tsv": "12\t0\t9\t1\n",
            "qrels.dev.tsv": "11\t0\t2\t1\n11\t0\t3\t0\n",
        },
    )
    data = read({"path": str(folder), "split": "dev"})
    assert data.corpus == list(corpus.values())
    assert data.queries == ["query one"]
    assert judged(data) == {("11", "2"): 1.0}


def test_judgements_of_trec(tmp_path: Path, several: Path) -> None:
    text = "q1 0 1 3\nq1 Q0 3 -1\n\nq2\t0\t2\t0\n"
    path = write(tmp_path, {"qrels.dl19.txt": text}) / "qrels.dl19.txt"
    parts = {part: str(several / f"{part}.jsonl") for part in ("corpus", "queries")}
    assert judged(read({**parts, "qrels": str(path)})) == {("q1", "1"): 3.0}
    packed = tmp_path / "qrels.tsv.gz"
    packed.write_bytes(gzip.compress(b"q2\t3\t1\n"))
    assert judged(read({**parts, "qrels": str(packed)})) == {("q2", "3"): 1.0}
    path.write_text("q1 0 1 1\nq1 0 3\n")
    with pytest.raises(ConfigError, match=r"has 3 fields in line 2, and 4 before: correct"):
        read({**parts, "qrels": str(path)})
    path.write_text("q1,1\n")
    with pytest.raises(ConfigError, match="begins with 'q1,1', which is not a judgement"):
        read({**parts, "qrels": str(path)})


@pytest.mark.parametrize("qrels", ["qrels", "default", "data"])
def test_a_data_set_of_the_hub_as_it_is_downloaded(tmp_path: Path, qrels: str) -> None:
    folder = tmp_path / "hub"
    for shard, key in enumerate(DOCUMENTS):
        name = f"corpus-{shard:05d}-of-00003.parquet"
        columns = {"_id": [key], "title": [""], "text": [DOCUMENTS[key]]}
        write_parquet(folder / "corpus" / name, **columns)
    write_parquet(
        folder / "queries" / "queries-00000-of-00001.parquet",
        _id=list(QUERIES),
        text=list(QUERIES.values()),
    )
    pairs = {"query-id": ["q1"], "corpus-id": ["2"]}
    write_parquet(folder / qrels / "test-00000-of-00001.parquet", **pairs)
    (folder / "README.md").write_text("---\n")
    data = read(str(folder))
    assert data.corpus == list(DOCUMENTS.values())
    assert judged(data) == {("q1", "2"): 1.0}


@pytest.mark.parametrize(
    ("line", "part", "num_fields"),
    [
        ("query-id\tcorpus-id\tscore", "qrels", None),
        ("q1\td1\t2", "qrels", 3),
        ("q1 0 d1 2", "qrels", 4),
        ("qid\titer\tdid\trel", "qrels", None),
        ("pid\tpassage", "corpus", None),
        ("my_id\tmy_text", "corpus", None),
        ("0\tThe presence of 3 things", "corpus", 2),
        ("D59219\thttps://a.b\tTitle\tBody", "corpus", None),
    ],
)
def test_a_first_line_shows_whether_it_is_a_header(
    line: str, part: str, num_fields: int | None
) -> None:
    layout = find_layout(line, part)
    assert (None if layout is None else layout.num_fields) == num_fields
