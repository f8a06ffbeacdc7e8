"""Files that cannot be used end in one sentence: the key as typed, the file, the place in it, the fix."""

from __future__ import annotations

import gzip
import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from inbatch.data.sources.files import resolve_files
from inbatch.data.sources.load import load_sources
from inbatch.errors import ConfigError

PAIRS = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(9)]
LINES = [json.dumps(row) + "\n" for row in PAIRS]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `datasets` logs, which does not reach the loggers of pytest."""
    lines: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(record.getMessage()))
    monkeypatch.setattr(logging.getLogger("datasets"), "handlers", [handler])
    return lines


def hash_all(path: str, **options: Any) -> None:
    for source in load_sources(path, **options):
        source.text_hashes()


def refused(path: Path | str, **options: Any) -> str:
    """The sentence that a bare ``data.train=path`` ends in."""
    with pytest.raises(ConfigError) as error:
        hash_all(str(path), **options)
    message = str(error.value)
    assert "\n" not in message
    assert not message.endswith(".")
    return message


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz", "header.csv"])
def test_files_without_rows(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = {"a.jsonl.gz": gzip.compress(b""), "header.csv": b"query,positive\n"}
    path.write_bytes(content.get(name, b""))
    assert refused(path, cache_dir=str(tmp_path)) == (
        f"data.train='{path}' holds no rows: remove it, or fill it"
    )


def test_an_empty_file_among_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(LINES))
    (tmp_path / "b.jsonl").write_text("")
    assert "b.jsonl' holds no rows" in refused(f"{tmp_path}/*.jsonl")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("line", "clause"),
    [
        ('{"query": "q6", "positive"', "has a broken line 7 (Expecting ':' delimiter, column 27)"),
        ('["q6", "p6"]', "has no object ({...}) in line 7"),
    ],
)
def test_a_broken_line_has_its_number(
    line: str, clause: str, packed: bool, tmp_path: Path, log: list[str]
) -> None:
    text = "".join([*LINES[:6], line + "\n", *LINES[7:]])
    path = tmp_path / ("a.jsonl.gz" if packed else "a.jsonl")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert clause in refused(path, cache_dir=str(tmp_path))
    assert log == []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_fault_of_one_file_of_several(workers: int, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(LINES))
    (tmp_path / "b.jsonl").write_text("".join([*LINES[:3], "{\n"]))
    message = refused(f"{tmp_path}/*.jsonl", cache_dir=str(tmp_path), workers=workers)
    assert message.startswith(f"data.train='{tmp_path}/b.jsonl' has a broken line 4")


@pytest.mark.parametrize(
    ("suffix", "mark", "shown", "fix"),
    [
        ("csv", ";", "';'", "set data.train.csv.delimiter=';' beside data.train=FILE"),
        ("csv", "|", "'|'", "set data.train.csv.delimiter='|' beside data.train=FILE"),
        ("csv", "\t", "a tab", "rename it to .tsv"),
        ("tsv", ",", "','", "rename it to .csv"),
    ],
)
@pytest.mark.parametrize("value", ["p", "p, or q, or r"])
def test_another_separator(
    suffix: str, mark: str, shown: str, fix: str, value: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text(f"query{mark}positive\nq{mark}{value}\nr{mark}p\n")
    message = f"data.train='{path}' has fields that seem to be separated by {shown}: {fix}"
    assert refused(path, cache_dir=str(tmp_path)) == message


def test_one_column_is_not_taken_for_another_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query\nq; r\n")
    assert "match no known pair" in refused(tmp_path / "a.csv")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "tsv"])
def test_texts_that_are_not_utf8(suffix: str, tmp_path: Path, log: list[str]) -> None:
    sep = "\t" if suffix == "tsv" else ","
    rows = [f"query{sep}positive", f"a{sep}b", f"fuß{sep}é"]
    if suffix == "jsonl":
        rows = [json.dumps({"query": q, "positive": "b"}, ensure_ascii=False) for q in ("a", "ß")]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes("\n".join([*rows, ""]).encode("latin-1"))
    message = refused(path, cache_dir=str(tmp_path))
    assert message.startswith(f"data.train='{path}' is not UTF-8 (line {len(rows)}): convert it")
    assert "iconv -f latin1 " in message
    assert log == []


def test_texts_in_utf16(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("query,positive\na,b\n".encode("utf-16"))
    assert "is not UTF-8 (line 1): convert it, for example with iconv -f utf-16 " in refused(
        path, cache_dir=str(tmp_path)
    )


@pytest.mark.parametrize(
    ("encoding", "text", "fix"),
    [
        ("cp1252", "“fuß” für 5 €", "iconv -f WINDOWS-1252 "),
        ("latin-1", "fuß", "iconv -f latin1 "),
        ("utf-16", "fuß", "iconv -f utf-16 "),
        ("utf-16-le", "fuß", "iconv -f utf-16le "),
        ("utf-16-be", "fuß", "iconv -f utf-16be "),
        ("cp1251", "сталь и медь", "iconv -f ENCODING "),
        ("shift-jis", "鋼のボルト", "iconv -f ENCODING "),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_the_encoding_that_a_file_has(
    encoding: str, text: str, fix: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{suffix}"
    lines = ["query,positive", f"a,{text}", f"{text},b"]
    if suffix == "jsonl":
        pairs = [("a", text), (text, "b")]
        lines = [json.dumps({"query": q, "positive": p}, ensure_ascii=False) for q, p in pairs]
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))
    message = refused(path, cache_dir=str(tmp_path))
    assert "' is not UTF-8 (line " in message
    assert fix in message


def test_one_broken_line_among_lines_in_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("query,positive\nfuß,b\n".encode() + "fuß,c\n".encode("latin-1"))
    assert refused(path, cache_dir=str(tmp_path)).endswith(
        "a.csv' is not UTF-8 (line 3): correct that line, since others that are not ASCII are UTF-8"
    )


def test_a_text_file_named_parquet(tmp_path: Path, log: list[str]) -> None:
    (tmp_path / "a.parquet").write_text("query,positive\na,b\n")
    assert "a.parquet' is not a parquet file" in refused(tmp_path / "a.parquet")
    assert log == []


def test_a_name_like_no_other_lists_the_folder(tmp_path: Path) -> None:
    (tmp_path / "nonames.csv").write_text("query,positive\na,b\n")
    key = "data.train='{}/{}' matches no file: "
    for name in ("nofile.csv", "train.csv"):
        message = key.format(tmp_path, name) + f"choose one of nonames.csv in {tmp_path}"
        assert refused(tmp_path / name) == message
    for name in ("nonames.cvs", "noname.csv", "nonmaes.csv"):
        message = key.format(tmp_path, name) + f"did you mean {tmp_path}/nonames.csv?"
        assert refused(tmp_path / name) == message


def test_the_key_of_a_source_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join([*LINES, json.dumps({"query": "q", "positive": None}) + "\n"]))
    columns = {"path": str(path), "columns": {"positive": "title"}}
    cases = [
        (
            {"train": str(path)},
            "data.train='",
            "set data.train.on_empty=drop beside data.train=FILE",
        ),
        ({"x": str(path)}, "data.train.x.path='", "set data.train.x.on_empty=drop"),
        ({"train": columns}, "data.columns names 'title'", "choose from query, positive"),
        ({"x": columns}, "data.train.x.columns names 'title'", "choose from query, positive"),
    ]
    for spec, start, fix in cases:
        with pytest.raises(ConfigError) as error:
            load_sources(spec)
        assert str(error.value).startswith(start)
        assert fix in str(error.value)


def test_chained_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("one", "two"):
            archive.writestr(f"in/{name}.jsonl", "".join(LINES))
    zipped = f"::{tmp_path}/a.zip"
    assert resolve_files(f"zip://in/*.jsonl{zipped}").paths == (
        f"zip://in/one.jsonl{zipped}",
        f"zip://in/two.jsonl{zipped}",
    )
    for chain in (zipped, f"::file://{tmp_path}/a.zip"):
        [source] = load_sources(f"zip://in/one.jsonl{chain}", cache_dir=str(tmp_path))
        assert source.read(np.arange(9))[0][0] == [row["query"] for row in PAIRS]
    assert "did you mean in/one.jsonl?" in refused(f"zip://in/ones.jsonl{zipped}")
