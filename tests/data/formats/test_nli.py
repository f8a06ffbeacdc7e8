"""Pairs with labels of inference, grouped by premise."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inbatch.data.formats import join
from inbatch.data.formats.read import Formatted, read_format
from inbatch.data.sources.dropped import Intake
from inbatch.data.sources.load import load_sources
from inbatch.data.sources.spec import parse_spec
from inbatch.errors import ConfigError

PAIRS = [
    ("a", "b", "entailment"),
    ("c", "d", "contradiction"),
    ("a", "e", "contradiction"),
    ("a", "f", "neutral"),
    ("g", "h", "entailment"),
    ("a", "i", "entailment"),
    ("g", "j", "-"),
    ("a", "b", "entailment"),
]
ROWS = [
    {"query": "a", "positive": ["b", "i"], "negative": ["e"]},
    {"query": "g", "positive": ["h"], "negative": []},
]


def read(path: Path, **keys: Any) -> Formatted:
    spec = parse_spec({"path": str(path), **keys}, field="data.train")
    return read_format(spec, field="data.train", cache_dir=str(path.parent / "cache"))


def write(path: Path, names: tuple[str, str, str], label: dict[str, Any] | None = None) -> Path:
    values = [(p, h, (label or {}).get(word, word)) for p, h, word in PAIRS]
    records = [dict(zip(names, pair)) for pair in values]
    if path.suffix == ".parquet":
        datasets.Dataset.from_list(records).to_parquet(path)
    elif path.suffix == ".csv":
        path.write_text("\n".join(",".join(map(str, line)) for line in (names, *values)) + "\n")
    else:
        path.write_text("\n".join(map(json.dumps, records)))
    return path


NUMBERS = {"entailment": 0, "neutral": 1, "contradiction": 2, "-": -1}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("label", [None, NUMBERS])
def test_a_premise_has_what_it_entails_and_what_it_contradicts(
    suffix: str, label: dict[str, Any] | None, tmp_path: Path
) -> None:
    path = write(tmp_path / f"a{suffix}", ("premise", "hypothesis", "label"), label)
    found = read(path)
    assert found.read_as.startswith("read as nli, since its ")
    assert list(found.table or []) == ROWS
    counts = {each.reason: each.count for each in found.left_out}
    assert counts == {
        "with a neutral label": 1,
        "without a label": 1,
        "of queries without a positive": 1,
        "given a second time": 1,
    }


@pytest.mark.parametrize("in_memory", [join.IN_MEMORY, 16])
def test_pairs_are_joined_alike_in_memory_and_by_files(
    in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "IN_MEMORY", in_memory)
    rng = np.random.default_rng(0)
    words = [*("entailment", "contradiction", "neutral", "-")]
    pairs = [
        (
            f"p{rng.integers(60)}",
            ["", " ", "h"][min(n % 31, 2)] + str(rng.integers(9) or ""),
            words[rng.integers(4)],
        )
        for n in range(400)
    ]
    path = tmp_path / "a.jsonl"
    names = ("premise", "hypothesis", "label")
    path.write_text("\n".join(json.dumps(dict(zip(names, pair))) for pair in pairs))
    groups: dict[str, tuple[list[str], list[str]]] = {}
    left: Counter[str] = Counter()
    again: list[int] = []
    for line, (premise, hypothesis, word) in enumerate(pairs, 1):
        if word not in words[:2]:
            left["with a neutral label" if word == "neutral" else "without a label"] += 1
        elif not hypothesis.strip():
            left["with an empty text"] += 1
        else:
            own = groups.setdefault(premise, ([], []))[words.index(word)]
            if hypothesis in own:
                again.append(line)
            else:
                own.append(hypothesis)
    expected = [
        {"query": premise, "positive": positive, "negative": negative}
        for premise, (positive, negative) in groups.items()
        if positive
    ]
    left["given a second time"] = len(again)
    left["of queries without a positive"] = sum(len(n) for p, n in groups.values() if not p)
    found = read(path, on_empty="drop")
    assert list(found.table or []) == expected
    assert {each.reason: each.count for each in found.left_out} == +left
    places = {each.reason: each.places for each in found.left_out}
    assert places["given a second time"] == tuple(f"{path}, line {n}" for n in again[:5])
    used = sum(len(row["positive"]) + len(row["negative"]) for row in expected)
    assert found.intake == Intake("pairs", 400, used, len(expected))
    assert found.intake.read == used + left.total()
    [folder] = (tmp_path / "cache").glob("format-*")
    assert sorted(each.name for each in folder.iterdir()) == ["left_out.json", "rows.arrow"]


@pytest.mark.parametrize("on_bad_row", ["error", "drop"])
def test_a_bad_text_does_not_hide_the_format(on_bad_row: str, tmp_path: Path) -> None:
    pairs = [*((p, h, NUMBERS[word]) for p, h, word in PAIRS), ("k", b"\xff", 0)]
    columns = {
        "premise": [p for p, _, _ in pairs],
        "hypothesis": [h if isinstance(h, bytes) else h.encode() for _, h, _ in pairs],
        "label": [label for _, _, label in pairs],
    }
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    if on_bad_row == "error":
        with pytest.raises(ConfigError, match="not UTF-8 in column 'hypothesis', row 8"):
            read(path)
        return
    found = read(path, on_bad_row="drop")
    assert list(found.table or []) == ROWS
    assert {each.reason: each.count for each in found.left_out}["that are not UTF-8"] == 1


def test_the_names_of_snli(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ("sentence1", "sentence2", "gold_label"))
    assert list(read(path).table or []) == ROWS


def test_another_order_of_numbers(tmp_path: Path) -> None:
    order = {"contradiction": 0, "entailment": 1, "neutral": 2, "-": -1}
    path = write(tmp_path / "a.jsonl", ("premise", "hypothesis", "label"), order)
    found = read(path, format={"labels": ["contradiction", "entailment", "neutral"]})
    assert list(found.table or []) == ROWS


def test_classes_of_a_data_set_are_known_by_their_names(tmp_path: Path) -> None:
    names = ["contradiction", "neutral", "entailment"]
    features = datasets.Features(
        premise=datasets.Value("string"),
        hypothesis=datasets.Value("string"),
        label=datasets.ClassLabel(names=names),
    )
    rows = [
        {"premise": p, "hypothesis": h, "label": names.index(word) if word in names else -1}
        for p, h, word in PAIRS
    ]
    (tmp_path / "hub").mkdir()
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(tmp_path / "hub" / "train.parquet")
    spec = parse_spec({"hub": str(tmp_path / "hub")}, field="data.train")
    found = read_format(spec, field="data.train", cache_dir=str(tmp_path / "cache"))
    assert found.read_as == "read as nli, since its label is entailment, neutral or contradiction"
    assert list(found.table or []) == ROWS


def test_a_limit_of_rows_is_said_beside_what_was_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ("premise", "hypothesis", "label"))
    for limit, rows in ((1, "2 rows (1 of them kept)"), (9, "2 rows")):
        [source] = load_sources(
            {"x": {"path": str(path), "limit": limit}}, cache_dir=str(tmp_path / "cache")
        )
        assert source.intake.describe() == f"8 pairs read, 4 used in {rows}, 4 left out"


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("premise,hypothesis,label\na,b,neutral\nc,d,contradiction\n")
    with pytest.raises(ConfigError, match="holds no rows"):
        load_sources(str(path), cache_dir=str(tmp_path / "cache"))


def test_another_split_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(
        "split\tsentence1\tsentence2\tlabel\ntrain\ta\tb\tentailment\ndev\ta\tc\tentailment\n"
    )
    found = read(path)
    assert list(found.table or []) == [{"query": "a", "positive": "b"}]
    assert [(each.reason, each.count) for each in found.left_out] == [("of another split", 1)]
    everything = read(path, format={"name": "nli", "split": None})
    assert list(everything.table or []) == [{"query": "a", "positive": ["b", "c"]}]


def test_scored_pairs_stay_scored_pairs(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("premise,hypothesis,label\na,b,1\nc,d,0\n")
    assert read(path).read_as == ""
    path.write_text("sentence1,sentence2,score\na,b,2\nc,d,0\n")
    assert read(path).read_as == ""


def test_an_unknown_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("premise,hypothesis,label\na,b,entailment\nc,d,maybe\n")
    with pytest.raises(ConfigError, match="has 'maybe' as label in line 3: give entailment"):
        read(path)


def test_rows_of_several_files_are_not_streamed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ("premise", "hypothesis", "label"))
    with pytest.raises(ConfigError, match="the format nli joins rows of one query over all files"):
        read(path, streaming=True)
