"""Lists that were written as text are recognised, asked about, and read as the lists that they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from inbatch.data.report.build import build_report
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.files import load_files, resolve_files
from inbatch.data.sources.list_texts import is_written_as_lists, parse_list
from inbatch.data.sources.load import load_sources
from inbatch.data.sources.reading import Reading
from inbatch.errors import ConfigError

NEGATIVES = [["it's", 'a "b"'], [], ["c, d\ne", "\\f", "é"]]


@pytest.mark.parametrize(
    "write", [json.dumps, repr, lambda v: str(np.array(v)), lambda v: repr(np.array(v))]
)
def test_what_programs_print_for_lists(write: Any) -> None:
    for texts in (NEGATIVES[0], NEGATIVES[2], ["one"], ["a b", "c" * 200, "d"]):
        assert parse_list(write(texts)) == texts
    for numbers in ([0.5, 1.0], [-2.0], [1e-07, 3.0]):
        assert parse_list(write(numbers)) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "[SEP]",
        "[1] see",
        "text",
        "['a'",
        "['a', 3]",
        "[None]",
        "['a''b']",
        "[a, b]",
        "['a', ...]",
    ],
)
def test_texts_that_are_no_lists(text: str) -> None:
    assert parse_list(text) is None
    assert not is_written_as_lists([text, "['a']", text, None, " "])


def frame(folder: Path, suffix: str, convert: Any) -> Path:
    rows = {
        "query": ["q1", "q2", "q3"],
        "positive": ["p1", "p2", "p3"],
        "neg": [*map(convert, NEGATIVES)],
    }
    path = folder / f"a.{suffix}"
    table = pandas.DataFrame(rows)
    if suffix == "csv":
        table.to_csv(path, index=False)
    elif suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=True)
    return path


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("convert", [repr, json.dumps])
def test_asked_about_and_read(suffix: str, convert: Any, tmp_path: Path) -> None:
    path = frame(tmp_path, suffix, convert)
    spec = {"path": str(path)}
    with pytest.raises(ConfigError) as error:
        load_sources({"x": spec}, cache_dir=str(tmp_path / "cache"))
    assert "has lists written as text in column 'neg' ([" in str(error.value)
    assert "data.train.x.lists=true to read lists, or set data.train.x.lists=false if" in str(
        error.value
    )
    [source] = load_sources({"x": {**spec, "lists": False}}, cache_dir=str(tmp_path / "cache"))
    assert source.read(np.arange(3))[0][2] == [convert(texts) for texts in NEGATIVES]
    [warning] = build_report([source]).warnings
    assert warning.startswith("texts in column 'neg' of source 'x' are lists written as text")
    [source] = load_sources({"x": {**spec, "lists": True}}, cache_dir=str(tmp_path / "cache"))
    assert source.ragged is not None
    documents = ["p1", *NEGATIVES[0], "p2", "p3", *NEGATIVES[2]]
    assert source.ragged.read(np.arange(3)).documents == documents
    roles = Roles("query", "positive", ("neg",))
    files = resolve_files(str(path), reading=Reading(lists=True))
    assert load_files(files, roles, cache_dir=str(tmp_path / "cache"))["neg"][:] == NEGATIVES


def test_a_broken_list_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "query,pos\n" + "".join(f"q,{text}\n" for text in ("['a']", "b", "['c", "['d']", ""))
    )
    roles = Roles("query", "pos")
    files = resolve_files(str(path), reading=Reading(lists=True))
    with pytest.raises(ConfigError, match=r"has a broken list in column 'pos', line 4: correct it"):
        load_files(files, roles, cache_dir=str(tmp_path))
    files = resolve_files(str(path), reading=Reading(lists=True, on_bad_row="drop"))
    table = load_files(files, roles, cache_dir=str(tmp_path))
    assert table["pos"][:] == [["a"], ["b"], None, ["d"], None]
    assert [bool(mark) for mark in table["__bad_row__"]] == [False, False, True, False, False]


def test_the_key_has_two_values(tmp_path: Path) -> None:
    path = frame(tmp_path, "csv", repr)
    with pytest.raises(ConfigError, match=r"data\.train\.x\.lists='yes' is not true or false"):
        load_sources({"x": {"path": str(path), "lists": "yes"}})
