"""Records that are easily misread: in another way than before, as text in place of lists, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inbatch.data.formats.read import Formatted, read_format
from inbatch.data.formats.records import HEAD_RECORDS
from inbatch.data.sources.load import load_sources
from inbatch.data.sources.spec import parse_spec
from inbatch.errors import ConfigError


def read(path: Path, **keys: Any) -> Formatted:
    spec = parse_spec({"path": str(path), **keys}, field="data.train")
    return read_format(spec, field="data.train", cache_dir=str(path.parent / "cache"))


def rows(found: Formatted) -> list[dict[str, Any]]:
    assert found.table is not None
    return [dict(row) for row in found.table]


def test_other_marks_of_a_csv_file_make_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,response\n'a,b',c\n")
    marked = rows(read(path, csv={"quote": "'"}, format="query_response"))
    assert marked == [{"query": "a,b", "positive": "c"}]
    with pytest.raises(ConfigError):
        read(path, csv={"quote": "none"}, format="query_response")


def test_a_prompt_is_read_in_the_cache_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "default")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"query": "q", "pos": ["p"], "neg": [], "prompt": "Find: "}) + "\n")
    assert read(path).prompts == {"query": "Find: "}
    assert (tmp_path / "cache").is_dir()
    assert not (tmp_path / "default").exists()


def test_records_are_counted_by_one_reason_for_each_kind_of_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps({"query": "q", "response": "p"})
    others = ['{"query": "r"', '{"query": 1, "x"}', '{"query": 1}', '{"query": 2, "response": 3}']
    path.write_text("\n".join([good, *others]))
    left = read(path, on_bad_row="drop").left_out
    assert {each.reason: each.count for each in left} == {
        "that are no JSON": 2,
        "that no row can be made of": 2,
    }
    assert left[1].places[1] == f"{path}, line 5, which has 2 as query"


def test_a_late_label_of_a_streamed_source_is_refused(tmp_path: Path) -> None:
    plain = json.dumps({"query": "q", "response": "p"})
    late = json.dumps({"query": "q", "response": "p", "label": 1})
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*[plain] * HEAD_RECORDS, late]))
    keys = {"path": str(path), "streaming": True}
    with pytest.raises(ConfigError, match=f"has a label, .* in line {HEAD_RECORDS + 1}: label all"):
        load_sources({"pairs": keys}, cache_dir=str(tmp_path / "cache"))
    path.write_text("\n".join([late, *[plain] * 2]))
    assert read(path, streaming=True).roles.label == "label"


TWICE = '{"query": "q", "query": "r", "response": "p"}'
HALF = '{"query": "\\ud800", "response": "p"}'


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (TWICE, "has 'query' twice in "),
        ('{"query": "q", "response": "p", "more": [{"a": 1, "a": 2}]}', "has 'a' twice in "),
        (HALF, r"has half of a character \(a lone surrogate\) in "),
        ('{"query": "q"', "is not JSON"),
        ('{"query": ' + "[" * 100_000 + "0", "is too deep"),
        ('{"query": ' + "9" * 5_000 + "}", "has a number that is too long"),
    ],
    ids=["twice", "twice-inside", "surrogate", "broken", "deep", "long-number"],
)
@pytest.mark.parametrize("at", [0, 1])
def test_a_faulty_line_is_refused_or_left_out(
    bad: str, problem: str, at: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"query": f"q{i}", "response": "\ud83d\ude00"}) for i in range(3)]
    lines[at] = bad
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=f"{problem}.*line {at + 1}"):
        read(path)
    found = read(path, on_bad_row="drop")
    assert [row["query"] for row in rows(found)] == [f"q{i}" for i in range(3) if i != at]
    assert [each.count for each in found.left_out] == [1]


@pytest.mark.parametrize("record", [TWICE, HALF])
def test_a_faulty_record_of_a_list_is_refused(record: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f"[{record},\n {record}]")
    with pytest.raises(
        ConfigError, match=r"twice in one of its|half of a character .* in row 0 \(counted"
    ):
        read(path, format="query_response")


def test_an_object_over_several_lines_is_still_refused_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"data": [\n {"query": "q", "response": "p"}\n]}')
    with pytest.raises(ConfigError, match="is one JSON object over several lines"):
        read(path, format="query_response", on_bad_row="drop")


@pytest.mark.parametrize("streaming", [False, True])
def test_lists_in_fields_are_asked_about(streaming: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,response,tags\n" + "q,\"['x', 'y']\",\"['t']\"\n" * 2)
    with pytest.raises(
        ConfigError, match=r"lists written as text in column 'response' \(\['x', 'y'"
    ):
        read(path, streaming=streaming)
    (source,) = load_sources(
        {"a": {"path": str(path), "streaming": streaming, "lists": True}},
        cache_dir=str(tmp_path / "cache"),
    )
    assert source.ragged is not None
    assert source.ragged.read(np.arange(1)).documents == ["x", "y"]


def test_lists_in_fields_are_texts_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,response,tags\nq,\"['x', 'y']\",\"['t']\"\n")
    assert rows(read(path, lists=False)) == [{"query": "q", "positive": "['x', 'y']"}]


def test_lists_that_are_not_trained_on_are_not_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,response,tags\nq,p,\"['t']\"\n")
    assert rows(read(path)) == [{"query": "q", "positive": "p"}]


def test_a_broken_list_is_left_out_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,response\n" + "q,\"['x', 'y']\"\n" * 2 + "r,\"['x', y\"\n")
    with pytest.raises(ConfigError, match="has a broken list in column 'response', line 4"):
        read(path, lists=True)
    left = read(path, lists=True, on_bad_row="drop").left_out
    assert [(each.reason, each.count) for each in left] == [("with a broken list in 'response'", 1)]


@pytest.mark.parametrize("lists", [None, True])
def test_lists_in_texts_of_json_are_asked_about(lists: bool | None, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"query": "q", "response": "['x', 'y']"}))
    with pytest.raises(ConfigError, match=r"'response' .*: store lists, or set .*lists=false"):
        read(path, lists=lists)


def test_a_name_twice_in_a_column_that_is_not_in_use_does_not_hide_the_prompt(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"query": "q", "pos": ["p"], "prompt": "Find: ", "more": 1, "more": 2}\n')
    assert read(path).prompts == {"query": "Find: "}
