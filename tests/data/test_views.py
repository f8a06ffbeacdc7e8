"""Rows in another form: columns as lists beside lists, and lists of one length as columns, from any place."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from helpers.list_rows import plain_values
from helpers.tiny import tiny_texts, tiny_tokenizer
from inbatch.data.collate import Collator
from inbatch.data.hashing import hash_texts
from inbatch.data.inspection.roles import roles_of
from inbatch.data.sources.choice import ListChoice
from inbatch.data.sources.load import Source, load_sources
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError
from inbatch.losses import (
    CosineSimilarity,
    MarginMSE,
    Matryoshka,
    MultipleNegativesRanking,
    Triplet,
)
from inbatch.losses.base import Loss
from inbatch.run.build import make_losses
from inbatch.run.compatibility import check_loss
from inbatch.run.forms import formed

Row = tuple[str, list[str], list[str]]
KINDS = ("memory", "files", "prepared", "streamed")
BESIDE = Source.from_columns("beside", {"query": ["q"], "pos": [["a", "b"]], "neg": [[]]})


def rows_of(num_negatives: int, num_rows: int = 13) -> list[Row]:
    columns = [tiny_texts(num_rows, seed=seed, min_words=3) for seed in range(2 + num_negatives)]
    return [(query, [positive], list(others)) for query, positive, *others in zip(*columns)]


def load(kind: str, records: list[dict[str, Any]], folder: Path, **keys: Any) -> Source:
    """Records of four files, of which one has a row that is left out."""
    columns = {name: [record[name] for record in records] for name in records[0]}
    if kind == "memory":
        return Source.from_columns("x", columns)
    bad = {**records[0], "query": " "}
    for number in range(4):
        lines = [*records[4 * number : 4 * number + 4], *([bad] if number == 1 else [])]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{number}.jsonl").write_text(text)
    spec = {"path": f"{folder}/*.jsonl", "on_empty": "drop", **keys}
    cache = str(folder / "cache")
    if kind == "streamed":
        spec |= {"streaming": True, "buffer_files": 2}
    [source] = load_sources({"x": spec}, cache_dir=cache)
    if kind == "prepared":
        job = ShardJob(source=source, folder=folder / "out", shard_rows=5)
        list(write_shards(job, open_job(job), workers=1))
        finish_job(job, versions={})
        [source] = load_sources({"x": {"path": str(folder / "out"), **keys}}, cache_dir=cache)
    return source


@pytest.mark.parametrize("kind", KINDS)
def test_columns_as_lists(kind: str, tmp_path: Path) -> None:
    rows = rows_of(2)
    records = [
        {"query": q, "positive": p[0], "negative_1": n[0], "negative_2": n[1]} for q, p, n in rows
    ]
    plain = load(kind, records, tmp_path)
    assert not plain.is_ragged
    losses: dict[str, Loss] = dict.fromkeys(("x", "beside"), MultipleNegativesRanking())
    assert formed([plain, BESIDE], losses, mixed=False) == [plain, BESIDE]
    view, beside = formed([plain, BESIDE], losses, mixed=True)
    assert beside is BESIDE
    for source in (view, pickle.loads(pickle.dumps(view))):
        ragged = source.ragged
        assert (source.num_rows, source.num_dropped) == (13, 0 if kind == "memory" else 1)
        picked = np.array([12, 0, 7])
        found = ragged.read(picked)
        assert found.queries == [rows[row][0] for row in picked]
        assert found.documents == [
            text for row in picked for text in (*rows[row][1], *rows[row][2])
        ]
        assert ragged.document_counts(picked).tolist() == [3, 3, 3]
        texts = [hash_texts([q, *p, *n]).tolist() for q, p, n in rows]
        assert ragged.hashes().take(np.arange(13)).values.tolist() == [t for r in texts for t in r]
        known = [t for row in texts for t in row[:2]]
        assert ragged.conflict_hashes().values.tolist() == known
        assert ragged.conflict_hashes().offsets.tolist() == list(range(0, 27, 2))
        lengths = [len(text) for q, p, n in rows for text in (q, *p, *n)]
        assert ragged.lengths().values.tolist() == lengths
    assert view.fingerprint != plain.fingerprint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_negatives", [0, 1, 3])
def test_lists_of_one_length_as_columns(kind: str, num_negatives: int, tmp_path: Path) -> None:
    rows = rows_of(num_negatives)
    records: list[dict[str, Any]] = [{"query": q, "positive": p, "negative": n} for q, p, n in rows]
    if num_negatives == 0:
        records = [{"query": q, "positive": p} for q, p, n in rows]
    for place, record in enumerate(records):
        record["label"] = place / 13
    loaded = load(kind, records, tmp_path)
    assert loaded.is_ragged
    assert formed([loaded], {"x": MultipleNegativesRanking()}, mixed=False) == [loaded]
    [view] = formed([loaded], {"x": CosineSimilarity()}, mixed=True)
    said = {0: "lists of one text each", 1: "lists of one text each"}.get(
        num_negatives, "lists of one positive and 3 negatives in each row"
    )
    assert view.read_as.endswith(f"{said}, read as plain columns")
    columns = [list(column) for column in zip(*([q, *p, *n] for q, p, n in rows))]
    for source in (view, pickle.loads(pickle.dumps(view))):
        picked = np.array([12, 0, 7])
        texts, labels = source.read(picked)
        assert texts == [[column[row] for row in picked] for column in columns]
        assert labels is not None
        assert labels.tolist() == pytest.approx([12 / 13, 0, 7 / 13])
        assert source.text_hashes().tolist() == [hash_texts(c).tolist() for c in columns]
        assert source.text_lengths().tolist() == [list(map(len, column)) for column in columns]
    tokenizer = TextTokenizer(hf=tiny_tokenizer(["a"]), max_length=8)
    batch = Collator(tokenizer=tokenizer)(view, np.arange(4), step=0, num_global_rows=4)
    assert (batch.num_columns, batch.documents) == (2 + num_negatives, None)


def test_texts_that_are_chosen_from_lists(tmp_path: Path) -> None:
    rows = [{"query": "a", "pos": ["b", "c"], "neg": ["d", "e"]}]
    rows += [{"query": "f", "pos": ["g"], "neg": ["h", "i", "j"]}] * 15
    keys = {"positives": "first", "max_negatives": 2, "prompts": {"neg": "no: ", "query": "q: "}}
    loaded = load("files", rows, tmp_path, **keys)
    [view] = formed([loaded], {"x": CosineSimilarity()}, mixed=False)
    assert view.columns == ("query", "pos", "neg_1", "neg_2")
    assert view.column_prompts(None) == ("q: ", "", "no: ", "no: ")
    assert "the first positive of each row, and 2 negatives, read" in view.read_as
    columns = {"query": ["a"], "positive": [["b"]], "negative": [["c", "d"]]}
    cut_to_one = ListChoice(max_negatives=1)
    loaded = Source.from_columns("x", columns, choice=cut_to_one)
    [cut] = formed([loaded], {"x": CosineSimilarity()}, mixed=False)
    assert cut.read_as == "the positive of each row, and 1 negative, read as plain columns"
    texts = [["a", "f"], ["b", "g"], ["d", "h"], ["e", "i"]]
    assert view.read(np.arange(2))[0] == texts
    assert view.text_hashes()[:, :2].tolist() == [hash_texts(column).tolist() for column in texts]


CHOICES: dict[str, dict[str, Any]] = {
    "all": {"positives": "all"},
    "draws nothing": {"positives": "sample", "negatives": "sample", "max_negatives": 5},
    "draws as many": {"negatives": "sample", "max_negatives": 3, "positives": "first"},
    "cuts": {"max_negatives": 2},
    "none": {"max_negatives": 0},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_texts_are_those_of_the_hashes_whatever_is_chosen(choice: str) -> None:
    rows = rows_of(3, num_rows=20)
    columns = {
        "query": [q for q, _, _ in rows],
        "pos": [p for _, p, _ in rows],
        "neg": [n for _, _, n in rows],
        "pos_score": [[row + 0.5] for row in range(20)],
        "neg_score": [[row, row + 1, row + 2] for row in range(20)],
    }
    [source] = load_sources(
        {"x": {"path": "x", **CHOICES[choice]}},
        tables={"x": datasets.Dataset.from_dict(columns)},
    )
    [view] = formed([source], {"x": CosineSimilarity()}, mixed=False)
    texts, _ = view.read(np.arange(20))
    assert texts == [list(each) for each in zip(*([q, *p, *n] for q, p, n in rows))][: len(texts)]
    assert view.text_hashes().tolist() == [hash_texts(each).tolist() for each in texts]
    scores = view.scores()
    assert scores is not None
    wanted = [[row + 0.5, row, row + 1, row + 2][: len(scores)] for row in range(20)]
    assert scores.T.tolist() == wanted
    assert len(scores) == len(texts) - 1
    rule = {r.column: r.rule for r in roles_of(view.roles, None, field="x", prepared=False,
                                               stored=source.roles)}  # fmt: skip
    for number, name in enumerate(view.roles.negatives, 1):
        assert rule[name] == f"text {number} of the lists in neg"


def test_scores_of_several_texts_are_not_lost_and_what_lacks_is_named() -> None:
    columns = {
        "query": ["a", "b"],
        "pos": [["c"], ["d"]],
        "neg": [["e", "f"], ["g", "h"]],
        "pos_score": [[0.5], [1.5]],
        "neg_score": [[1.0, 2.0], [3.0, None]],
    }
    for left_out, problem in (
        ("none", "lacks some in 1 of its 2 rows: score every document"),
        ("pos_score", "has no positive_score: name it in data.columns.positive_score"),
        ("neg_score", "has no negative_score: name it in data.columns.negative_score"),
    ):
        kept = {name: values for name, values in columns.items() if name != left_out}
        source = Source.from_columns("x", kept, field="data.train")
        [view] = formed([source], {"x": CosineSimilarity()}, mixed=False)
        assert (view.roles.negatives, view.roles.ignored) == (("neg_1", "neg_2"), ())
        scores = view.scores()
        assert scores is not None
        if left_out != "neg_score":
            assert plain_values(scores[1:].ravel()) == [1, 3, 2, None]
        with pytest.raises(ConfigError, match=re.escape(problem)):
            check_loss(MarginMSE(), view, guided=False)


def test_a_view_tells_what_was_read_of_pairs(tmp_path: Path) -> None:
    pairs = [("a", "b", 0), ("a", "c", 2), ("d", "e", 0), ("d", "f", 2), ("g", "h", 1)]
    names = ("premise", "hypothesis", "label")
    lines = [json.dumps(dict(zip(names, pair))) + "\n" for pair in pairs]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    [nli] = load_sources(
        {"x": {"path": str(tmp_path / "a.jsonl"), "format": "nli"}}, cache_dir=str(tmp_path / "c")
    )
    assert not nli.is_ragged  # each premise has one of both
    losses: dict[str, Loss] = dict.fromkeys(("x", "beside"), MultipleNegativesRanking())
    view, _ = formed([nli, BESIDE], losses, mixed=True)
    for source in (nli, view):
        assert source.intake.describe() == "5 pairs read, 4 used in 2 rows, 1 left out"


UNEQUAL: dict[str, tuple[list[Row], Loss, str]] = {
    "positives": (
        [("a", ["b"], []), ("c", ["d"], []), ("e", ["f", "g"], [])],
        CosineSimilarity(),
        "line 3 of FILE has 2 positives and 0 negatives: choose a loss that takes lists, "
        "such as loss=multiple_negatives_ranking, or set data.train.x.positives=first",
    ),
    "negatives": (
        [("a", ["b"], ["c", "d", "e"]), ("f", ["g"], ["h", "i"])],
        Triplet(),
        "takes one positive and the same number of negatives in every row, and "
        "line 2 of FILE has 1 positive and 2 negatives, where the first has 3: choose a loss "
        "that takes lists, such as loss=multiple_negatives_ranking, or set data.train.x.max_negatives=1",
    ),
    "both": (
        [("a", ["b", "c"], ["d"])],
        Matryoshka(CosineSimilarity(), dims=[8]),
        "or set data.train.x.positives=first data.train.x.max_negatives=0",
    ),
    "no negative": (
        [("a", ["b"], ["c"]), ("d", ["e"], [])],
        Triplet(),
        "has 1 positive and 0 negatives, where the first has 1: choose a loss that takes lists, such as "
        "loss=multiple_negatives_ranking, or leave out the rows without negatives",
    ),
    "too many": (
        [("a", ["b"], ["c", "d"])],
        Triplet(),
        "has 4 (query, pos, neg_1, neg_2): set data.train.x.max_negatives=1",
    ),
}


@pytest.mark.parametrize("case", UNEQUAL)
def test_lists_that_a_loss_for_columns_refuses(case: str, tmp_path: Path) -> None:
    rows, loss, message = UNEQUAL[case]
    path = tmp_path / "a.jsonl"
    records = [{"query": q, "pos": p, "neg": n} for q, p, n in rows]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    sources = load_sources({"x": {"path": str(path)}})
    with pytest.raises(ConfigError, match=re.escape(message.replace("FILE", str(path)))):
        make_losses(loss, sources, guided=False, mixed=False)


def test_a_draw_is_no_column() -> None:
    columns = {"query": ["a"], "pos": [["b", "c"]]}
    [source] = load_sources(
        {"x": {"path": "x", "positives": "sample"}},
        tables={"x": datasets.Dataset.from_dict(columns)},
    )
    with pytest.raises(
        ConfigError, match="positives='sample' draws other texts in each epoch, and"
    ):
        formed([source], {"x": CosineSimilarity()}, mixed=False)


def test_one_list_has_one_prompt() -> None:
    columns = {"query": ["a"], "positive": ["b"], "negative_1": ["c"], "negative_2": ["d"]}
    source = Source.from_columns("x", columns, prompts={"negative_2": "no: "}, field="data.train.x")
    losses: dict[str, Loss] = dict.fromkeys(("x", "beside"), MultipleNegativesRanking())
    with pytest.raises(ConfigError, match=r"data\.train\.x\.prompts.* differ between columns"):
        formed([source, BESIDE], losses, mixed=True)
