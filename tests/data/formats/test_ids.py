"""Rows of ids: BEIR folders and MS MARCO's triplets, whose texts are looked up and not copied."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from inbatch.data.formats import id_lines, id_pairs
from inbatch.data.formats.read import Formatted, read_format
from inbatch.data.formats.text_index import RepeatedIdError, write_index
from inbatch.data.hashing import hash_texts
from inbatch.data.sources.indexed import IndexedRows
from inbatch.data.sources.load import load_sources
from inbatch.data.sources.spec import parse_spec
from inbatch.errors import ConfigError

CORPUS = [
    {"_id": "d1", "title": "One", "text": "first"},
    {"_id": "d2", "title": "", "text": "second"},
    {"_id": "d3", "text": "third"},
    {"_id": "d4", "title": "", "text": ""},
]
QUERIES = [{"_id": "q1", "text": "uno"}, {"_id": "q2", "text": "due"}, {"_id": "q3", "text": "tre"}]
QRELS = [("q2", "d2", 1), ("q1", "d1", 2), ("q1", "d3", 1), ("q2", "d1", 0)]


def beir(folder: Path, qrels: list[tuple[str, str, int]] = QRELS, split: str = "train") -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, records in (("corpus", CORPUS), ("queries", QUERIES)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    header = ["query-id\tcorpus-id\tscore"]
    judged = ["\t".join(map(str, line)) for line in qrels]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(header + judged) + "\n")
    return folder


def read(path: Path, cache: Path, **keys: Any) -> Formatted:
    spec = parse_spec({"path": str(path), **keys}, field="data.train")
    return read_format(spec, field="data.train", cache_dir=str(cache))


def rows(found: Formatted) -> list[dict[str, Any]]:
    assert isinstance(found.table, IndexedRows)
    listed: list[dict[str, Any]] = found.table.data.table.to_pylist()
    return listed


def left_out(found: Formatted) -> dict[str, int]:
    return {each.reason: each.count for each in found.left_out}


def test_a_beir_folder_gives_a_row_for_each_judged_query(tmp_path: Path) -> None:
    found = read(beir(tmp_path / "beir"), tmp_path / "cache")
    assert found.read_as.startswith(
        "read as beir, since the folder has a corpus, queries and qrels"
    )
    assert rows(found) == [
        {"query": "uno", "positive": ["One first", "third"]},
        {"query": "due", "positive": ["second"]},
    ]
    assert found.left_out[0].places == (f"{tmp_path}/beir/qrels/train.tsv, line 5",)
    assert left_out(found) == {"of a document judged 0": 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("hard.tsv", "q1\td2\nq2\td1\nq2\td3\nq1\td1\nq3\td1\n"),
        (
            "hard.txt",
            "q1 Q0 d2 1 3.5 bm25\nq2 Q0 d1 1 9 bm25\nq2 Q0 d3 2 8 bm25\nq1 Q0 d1 3 2 x\nq3 Q0 d1 1 1 x\n",
        ),
        (
            "hard.jsonl",
            '{"qid": "q1", "neg": {"bm25": ["d2"], "dense": ["d2", "d1"]}}\n'
            '{"qid": "q2", "pos": ["d2"], "neg": ["d1", "d3"]}\n{"qid": "q3", "neg": ["d1"]}\n',
        ),
    ],
)
def test_negatives_of_a_file(name: str, content: str, tmp_path: Path) -> None:
    folder = beir(tmp_path / "beir")
    (folder / name).write_text(content)
    found = read(folder, tmp_path / "cache", format={"negatives": name})
    elsewhere = (folder / name).rename(tmp_path / name)
    again = read(folder, tmp_path / "cache", format={"negatives": str(elsewhere)})
    assert rows(again) == rows(found)
    assert rows(found) == [
        {"query": "uno", "positive": ["One first", "third"], "negative": ["second"]},
        {"query": "due", "positive": ["second"], "negative": ["One first", "third"]},
    ]
    assert found.intake is not None
    assert found.intake.describe() == (
        "9 judgements and negatives read (3 queries, 4 documents), 6 used in 2 rows, 3 left out"
    )
    # d1 is a positive of q1, and q3 has none.
    assert left_out(found) == {
        "of a document judged 0": 1,
        "given a second time": 1,
        "of queries without a positive": 1,
    }


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    folder = beir(tmp_path / "beir", [("q1", "d1", 0)])
    with pytest.raises(ConfigError, match="holds no rows"):
        load_sources(str(folder), cache_dir=str(tmp_path / "cache"))


def test_a_template_and_a_split(tmp_path: Path) -> None:
    folder = beir(tmp_path / "beir", split="dev")
    with pytest.raises(ConfigError, match=r"has no qrels/train.tsv: set data.train.split=dev"):
        read(folder, tmp_path / "cache")
    found = read(folder, tmp_path / "cache", split="dev", format={"template": "{title}: {text}"})
    assert rows(found)[0]["positive"] == ["One: first", ": third"]


@pytest.mark.parametrize(
    ("line", "problem", "reason"),
    [
        (
            ("q1", "d9", 1),
            "names the document 'd9' without a text in line 6",
            "of a document without a text",
        ),
        (
            ("q9", "d1", 1),
            "names the query 'q9' without a text in line 6",
            "of a query without a text",
        ),
        (
            ("q3", "d4", 1),
            "names the document 'd4' with an empty text",
            "of a document with an empty text",
        ),
    ],
)
def test_ids_without_a_text_are_refused_or_counted(
    line: tuple[str, str, int], problem: str, reason: str, tmp_path: Path
) -> None:
    folder = beir(tmp_path / "beir", [*QRELS, line])
    with pytest.raises(ConfigError, match=re.escape(problem)):
        read(folder, tmp_path / "cache")
    key = "on_empty" if "empty" in reason else "on_bad_row"
    with pytest.raises(ConfigError, match=f"set data.train.{key}=drop"):
        read(folder, tmp_path / "cache", **{"on_bad_row": "drop", "on_empty": "drop", key: "error"})
    found = read(folder, tmp_path / "cache", **{key: "drop"})
    assert left_out(found)[reason] == 1
    assert [row["query"] for row in rows(found)] == ["uno", "due"]


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("corpus.jsonl", '{"title": "x", "text": "y"}', "has no _id in line 1"),
        (
            "corpus.jsonl",
            '{"_id": "1", "body": "y"}',
            "has a document with the fields _id, body in line 1",
        ),
        (
            "corpus.jsonl",
            '{"_id": "1", "text": "y"}\n{"_id": "1", "text": "z"}',
            "one id twice (texts 1 and 2)",
        ),
        ("queries.jsonl", '{"_id": "1", "text"', "is not JSON"),
        (
            "qrels/train.tsv",
            "a\tb\tc\nq1\td1\n",
            "has 2 fields, of which the last is 'd1' in line 2",
        ),
    ],
)
def test_a_line_that_cannot_be_used_is_refused(
    file: str, content: str, problem: str, tmp_path: Path
) -> None:
    folder = beir(tmp_path / "beir")
    (folder / file).write_text(content + "\n")
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        read(folder, tmp_path / "cache")
    assert caught.value.value == f"{folder}/{file}"
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [
        ".lock"
    ]  # nothing unfinished


def marco(folder: Path, *lines: str) -> Path:
    folder.mkdir()
    (folder / "collection.tsv").write_text("10\tten\n20\ttwenty\n30\tthirty\n")
    (folder / "queries.train.tsv").write_text("1\tone\n2\ttwo\n")
    path = folder / "triples.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_triplets_of_ids_give_a_row_for_each_query(tmp_path: Path) -> None:
    path = marco(tmp_path / "ms", "2\t20\t10", "1\t10\t30", "2\t20\t30", "2\t20\t30")
    found = read(path, tmp_path / "cache")
    assert (
        found.read_as == "read as msmarco, since its lines are three ids: query, positive, negative"
    )
    assert rows(found) == [
        {"query": "one", "positive": ["ten"], "negative": ["thirty"]},
        {"query": "two", "positive": ["twenty"], "negative": ["ten", "thirty"]},
    ]
    assert left_out(found) == {"given a second time": 1}


def test_scores_stay_with_their_documents(tmp_path: Path) -> None:
    path = marco(tmp_path / "ms", "9.5\t1.5\t2\t20\t10", "8\t-2\t1\t10\t30", "9.5\t0.25\t2\t20\t30")
    assert rows(read(path, tmp_path / "cache"))[1] == {
        "query": "two",
        "positive": ["twenty"],
        "negative": ["ten", "thirty"],
        "positive_score": [9.5],
        "negative_score": [1.5, 0.25],
    }


@pytest.mark.parametrize("score", ["1e39", "inf", "high"])
def test_a_line_whose_score_is_no_finite_number(score: str, tmp_path: Path) -> None:
    path = marco(tmp_path / "ms", "8\t-2\t1\t10\t30", f"{score}\t1.5\t2\t20\t10")
    spec = {"path": str(path), "on_bad_row": "drop"}
    with pytest.raises(ConfigError, match=rf"has the scores {score}, 1.5 in line 2: give finite"):
        read(path, tmp_path / "cache")
    [source] = load_sources({"x": spec}, cache_dir=str(tmp_path / "cache"))
    assert ", 2 used in 1 rows, 1 left out" in source.intake.describe()


def test_pairs_are_searched_without_a_copy() -> None:
    assert np.zeros(2, id_pairs._PAIR)["query"].flags.aligned


@pytest.mark.parametrize("read_pairs", [id_pairs._READ_PAIRS, 1, 40])
def test_many_triplets_give_the_rows_of_a_dictionary(
    read_pairs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_pairs, "_READ_PAIRS", read_pairs)
    monkeypatch.setattr(id_lines, "_BLOCK", 64)
    rng = np.random.default_rng(0)
    folder = tmp_path / "ms"
    folder.mkdir()
    (folder / "collection.tsv").write_text("".join(f"{n}\td{n}\n" for n in range(30)))
    (folder / "queries.tsv").write_text("".join(f"{n}\tq{n}\n" for n in range(20)))
    triplets = [
        (int(query), int(query) + int(rng.integers(2)), int(rng.integers(33)))
        for query in rng.integers(0, 22, size=600)  # of which some have no text
    ]
    lines = ["\t".join(map(str, triplet)) for triplet in triplets]
    lines[1] = "1\t2"
    path = folder / "triples.tsv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match=r"has 2 fields in line 2: .*on_bad_row=drop"):
        read(path, tmp_path / "cache")
    found = read(path, tmp_path / "cache", on_bad_row="drop")
    positives: dict[int, dict[str, None]] = {}
    negatives: dict[int, list[str]] = {}
    told: set[tuple[int, int]] = set()
    absent = 0
    for number, (query, positive, negative) in enumerate(triplets):
        if number == 1:
            continue
        if query < 20:
            positives.setdefault(query, {})[f"d{positive}"] = None
        absent += (query >= 20) * (((query, positive) not in told) + 1)
        told.add((query, positive))
        if query < 20 and negative < 30:
            negatives.setdefault(query, []).append(f"d{negative}")
    expected = []
    again = 0
    for query in sorted(positives):
        distinct = dict.fromkeys(negatives[query])
        kept = [text for text in distinct if text not in positives[query]]
        again += len(negatives[query]) - len(kept)
        expected.append({"query": f"q{query}", "positive": [*positives[query]], "negative": kept})
    assert rows(found) == expected
    left = left_out(found)
    assert left["given a second time"] == again
    assert left["of a query without a text"] == absent
    assert left["that no row can be made of"] == 1
    used = sum(len(row["positive"]) + len(row["negative"]) for row in expected)
    assert found.intake is not None
    assert (found.intake.used, found.intake.num_rows) == (used, 20)
    assert found.intake.read == used + sum(left.values())
    assert found.intake.beside == (("triplets", 600), ("queries", 20), ("documents", 30))
    [folder] = (tmp_path / "cache").glob("format-*")
    assert not (folder / "pairs.bin").exists()


def test_a_collection_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    path = marco(tmp_path / "ms", "2\t20\t10", "1\t10\t20")
    (tmp_path / "ms" / "collection.tsv").rename(tmp_path / "all.tsv")
    with pytest.raises(
        ConfigError, match=r"data.train.format.collection is not set, and .* has no coll"
    ):
        read(path, tmp_path / "cache")
    found = read(path, tmp_path / "cache", format={"collection": str(tmp_path / "all.tsv")})
    assert rows(found)[1]["negative"] == ["ten"]


def test_no_text_is_copied(tmp_path: Path) -> None:
    path = marco(tmp_path / "ms", *(f"{1 + i % 2}\t10\t20" for i in range(50)))
    table = read(path, tmp_path / "cache").table
    assert isinstance(table, IndexedRows)
    (folder,) = (tmp_path / "cache").glob("format-*")
    assert (folder / "corpus" / "texts.bin").read_bytes() == b"tentwentythirty"
    assert pa.ipc.open_stream(str(folder / "rows.arrow")).schema.field("query").type == pa.int32()
    again = pickle.loads(pickle.dumps(table))
    assert len(pickle.dumps(table)) < 1000
    assert again.data.table.equals(table.data.table)
    assert again.select(range(1)).data.table.to_pylist() == table.data.table.to_pylist()[:1]


def test_a_source_reads_the_texts_of_its_ids(tmp_path: Path) -> None:
    path = marco(tmp_path / "ms", "2\t20\t10", "1\t10\t30", "2\t20\t30")
    (source,) = load_sources({"ids": str(path)}, cache_dir=str(tmp_path / "cache"))
    source = pickle.loads(pickle.dumps(source))  # as a loader's worker gets it
    assert source.ragged is not None
    found = source.ragged.read(np.array([1, 0]))
    assert (found.queries, found.documents) == (
        ["two", "one"],
        ["twenty", "ten", "thirty", "ten", "thirty"],
    )
    wanted = ["one", "ten", "thirty", "two", "twenty", "ten", "thirty"]
    assert source.ragged.hashes().values.tolist() == hash_texts(wanted).tolist()
    assert source.ragged.lengths().values.tolist() == list(map(len, wanted))
    table = source.table(0, 2)
    assert table.column("query").type == pa.large_string()
    assert table.column("negative").to_pylist() == [["thirty"], ["ten", "thirty"]]


def test_ids_are_found_among_many(tmp_path: Path) -> None:
    texts = {f"id{i}": f"text {i}" for i in range(70_000)}
    index = write_index(tmp_path / "many", texts.items())
    wanted = ["id69999", "id0", "nowhere", "id65536"]
    numbers = index.numbers(wanted)
    assert numbers.tolist() == [69_999, 0, -1, 65_536]
    assert index.texts.take(pa.array(numbers[numbers >= 0])).to_pylist() == [
        texts[key] for key in wanted if key in texts
    ]
    assert not np.any(index.empty)
    with pytest.raises(RepeatedIdError):
        write_index(tmp_path / "twice", [("a", "x"), ("b", "y"), ("a", "z")])


def test_rows_of_ids_are_not_streamed(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="streaming=true reads one file at a time, and the format beir"
    ):
        read(beir(tmp_path / "beir"), tmp_path / "cache", streaming=True)
