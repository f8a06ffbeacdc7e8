"""Retrieval on a folder in BEIR's layout: the same numbers as trec_eval and sentence-transformers.

The reference reads the files as BEIR's loader does and joins title and text as its encoder does. Judgements
have grades, and some are of documents and queries that are not there.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer import evaluation as oracle

from helpers.evaluation_oracle import SCORE_FUNCTIONS, OracleModel, Table, assert_same
from inbatch.evaluation import InformationRetrievalEvaluator, evaluator_for

NUM_DOCUMENTS, NUM_QUERIES = 120, 30
TREC_NAMES = {
    **{f"ndcg@{k}": f"ndcg_cut_{k}" for k in (1, 10)},
    **{f"recall@{k}": f"recall_{k}" for k in (1, 3, 5, 10)},
    **{f"precision@{k}": f"P_{k}" for k in (1, 3, 5, 10)},
    **{f"accuracy@{k}": f"success_{k}" for k in (1, 3, 5, 10)},
    "map@100": "map_cut_100",
}
MEASURES = {"ndcg_cut.1,10", "recall.1,3,5,10", "P.1,3,5,10", "success.1,3,5,10", "map_cut.100"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries d0, d1, ... have ids of documents; every third document has no title."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("beir")
    (folder / "qrels").mkdir()
    with (folder / "corpus.jsonl").open("w") as file:
        for i in range(NUM_DOCUMENTS):
            row = {"_id": f"d{i}", "title": "" if i % 3 == 0 else f"title {i}", "text": f"text {i}"}
            file.write(json.dumps(row | {"metadata": {}}) + "\n")
    with (folder / "queries.jsonl").open("w") as file:
        for i in range(NUM_QUERIES):
            file.write(json.dumps({"_id": f"d{i}", "text": f"query {i}"}) + "\n")
    with (folder / "qrels" / "test.tsv").open("w") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for i in range(0, NUM_QUERIES, 2):
            judged = rng.choice(NUM_DOCUMENTS + 20, 8, replace=False)  # 20 ids are of no document
            grades = [3, *rng.integers(0, 4, 7)]
            file.writelines(f"d{i}\td{d}\t{g}\n" for d, g in zip(judged, grades))
        file.write("q7\td1\t1\nq7\td2\t2\n")  # a query without text
    return folder


def read_as_beir(folder: Path) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """Texts of documents and queries, and judgements."""
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    corpus = {row["_id"]: (row["title"] + " " + row["text"]).strip() for row in rows}
    rows = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    queries = {row["_id"]: row["text"] for row in rows}
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / "test.tsv").open() as file:
        for query, document, score in list(csv.reader(file, delimiter="\t"))[1:]:
            qrels.setdefault(query, {})[document] = int(score)
    return corpus, queries, qrels


def trec_eval(folder: Path, *, exclude_same_id: bool) -> dict[str, float]:
    """Means over the queries that have text and judgements."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    corpus, queries, qrels = read_as_beir(folder)
    table, run = Table(), {}
    documents = table(list(corpus.values()), role="document")
    for query in qrels.keys() & queries.keys():
        scores = SCORE_FUNCTIONS["cosine"](table([queries[query]], role="query"), documents)[0]
        hits = dict(zip(corpus, scores.tolist()))
        if exclude_same_id:
            hits.pop(query)
        run[query] = hits
    found = pytrec_eval.RelevanceEvaluator(qrels, MEASURES).evaluate(run)
    assert len(found) == NUM_QUERIES // 2
    return {
        ours: float(np.mean([values[theirs] for values in found.values()]))
        for ours, theirs in TREC_NAMES.items()
    }


@pytest.mark.parametrize("exclude_same_id", [False, True])
def test_equals_trec_eval(folder: Path, exclude_same_id: bool) -> None:
    evaluator = InformationRetrievalEvaluator(
        str(folder), graded=True, exclude_same_id=exclude_same_id, ndcg_at_k=[1, 10]
    )
    ours = evaluator(Table())
    for key, value in trec_eval(folder, exclude_same_id=exclude_same_id).items():
        assert ours[f"cosine_{key}"] == pytest.approx(value, abs=1e-7), key


def test_equals_sentence_transformers(folder: Path) -> None:
    corpus, queries, qrels = read_as_beir(folder)
    relevant = {
        query: {document for document, grade in judged.items() if grade > 0}
        for query, judged in qrels.items()
    }
    cosine = {"cosine": SCORE_FUNCTIONS["cosine"]}
    theirs = oracle.InformationRetrievalEvaluator(queries, corpus, relevant, score_functions=cosine)
    table = Table()
    ours = InformationRetrievalEvaluator(str(folder))(table)
    assert_same(ours, theirs(OracleModel(table)))


def test_what_is_counted_and_how_is_said(folder: Path) -> None:
    _, queries, qrels = read_as_beir(folder)
    absent = [
        document
        for query, judged in qrels.items()
        for document, grade in judged.items()
        if query in queries and grade > 0 and int(document[1:]) >= NUM_DOCUMENTS
    ]
    assert len(absent) > 5
    rows = evaluator_for(str(folder)).evaluated_rows()  # type: ignore[attr-defined]
    assert rows.size == NUM_QUERIES // 2
    assert rows.notes == (
        "documents are {title} {text}",
        "1 judged query (q7) without text, left out",
        f"{len(absent)} judgements ({absent[0]}) of a document that is not in the corpus: "
        "relevant and not found",
    )


def test_the_document_of_the_same_id_is_left_out_of_the_hits(folder: Path) -> None:
    whole = InformationRetrievalEvaluator(str(folder), map_at_k=[NUM_DOCUMENTS])
    rest = InformationRetrievalEvaluator(
        str(folder), map_at_k=[NUM_DOCUMENTS], exclude_same_id=True
    )
    data = rest.data
    for encode in (Table(), Table(grid=True)):
        every, without = (each.search(encode)["cosine"].tolist() for each in (whole, rest))
        for query, all_hits, hits in zip(data.query_ids, every, without, strict=True):
            own = data.ids.index(query)
            assert hits == [hit for hit in all_hits if hit != own] + [-1]
    short = InformationRetrievalEvaluator(str(folder), map_at_k=[3], exclude_same_id=True)
    hits = short.search(Table())["cosine"]
    assert hits.shape == (NUM_QUERIES // 2, 10)
    assert not bool(
        (hits == torch.tensor([data.ids.index(q) for q in data.query_ids])[:, None]).any()
    )
    assert any("15 queries (d0) with the id of a document" in note for note in data.notes)


def test_queries_that_are_in_the_corpus_are_said(folder: Path, tmp_path: Path) -> None:
    parts: dict[str, Any] = {"corpus": str(folder / "corpus.jsonl")}
    for part, text in (("queries", "_id,text\nd0,text 0\nd1,text 1\n"), ("qrels", "")):
        parts[part] = str(tmp_path / f"{part}.csv")
        Path(parts[part]).write_text(text or "qid,did,score\nd0,d5,1\nd1,d6,0\n")
    notes = evaluator_for(parts).evaluated_rows().notes  # type: ignore[attr-defined]
    assert notes[1:] == (
        "1 judged query (d1) without a relevant document, left out (trec_eval counts 0 for it)",
        "1 query (d0) in the corpus under the same id: exclude_same_id=true leaves it out, as BEIR",
    )
