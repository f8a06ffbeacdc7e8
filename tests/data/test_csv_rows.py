"""Rows of csv and tsv files equal the records of the file, or the file is refused with the line."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest

from inbatch.data.report.build import build_report
from inbatch.data.report.text import to_markdown
from inbatch.data.sources.csv_tables import CsvReader
from inbatch.data.sources.diagnose import FaultyFileError
from inbatch.data.sources.load import Source, load_sources
from inbatch.data.sources.reading import CsvRules
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.errors import ConfigError

Rows = list[list[str]]
HEAD = ["query", "positive"]
ALPHABET = [
    "a",
    "b c",
    "é",
    '"',
    '""',
    ",",
    "\t",
    "\n",
    "\r\n",
    "\\",
    "'",
    " ",
    '5" x 7',
    "[1]",
    "#",
    ";",
]


def read(content: bytes, rules: CsvRules | None = None, **options: Any) -> Rows:
    """All fields of a file, with null as the empty text that it was."""
    reader = CsvReader(io.BytesIO(content), path="a.csv", rules=rules or CsvRules(), **options)
    tables = [table.to_pydict() for table in reader.tables(reader.names)]
    columns = [[text or "" for table in tables for text in table[name]] for name in reader.names]
    return [reader.names, *map(list, zip(*columns))]


def refused(content: str, rules: CsvRules | None = None) -> str:
    with pytest.raises(FaultyFileError) as error:
        read(content.encode(), rules)
    return ": ".join(error.value.fault)


def read_or_fix(content: bytes, rules: CsvRules) -> Rows | str:
    try:
        return read(content, rules)
    except FaultyFileError as error:
        return error.fault.fix


def written(rows: Rows, **options: Any) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, **options).writerows(rows)
    return file.getvalue().encode()


def records(content: bytes, **options: Any) -> Rows | None:
    """What Python's reader makes of a file when it is strict; None where it refuses."""
    try:
        found = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True, **options))
    except csv.Error:
        return None
    return [row for row in found if len(row) > 1 or "".join(row).strip()]


def random_rows(rng: random.Random) -> Rows:
    width = rng.choice([2, 2, 3, 5])
    text = lambda: "".join(rng.choices(ALPHABET, k=rng.randint(0, 6)))  # noqa: E731
    body = [[text() for _ in range(width)] for _ in range(rng.randint(1, 12))]
    return [[f"c{i}" for i in range(width)], *body]


QUOTING = [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_writer_writes_is_read(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        rows = random_rows(rng)
        delimiter = rng.choice([",", "\t", ";", "|"])
        options = {
            "quoting": rng.choice(QUOTING),
            "delimiter": delimiter,
            "lineterminator": rng.choice(["\n", "\r\n"]),
        }
        content = written(rows, **options)
        assert read(content, CsvRules(delimiter=delimiter, stated=True)) == rows
        found = read_or_fix(content, CsvRules(delimiter=delimiter))
        assert found == rows or "say which it is" in found  # it can be read in two ways
        escaped = {**options, "doublequote": False, "escapechar": "\\"}
        rules = CsvRules(delimiter=delimiter, escape="\\", stated=True)
        assert read(written(rows, **escaped), rules) == rows


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_is_read_as_strictly_as_by_python_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    num_read = num_refused = 0
    for _ in range(150):
        content = bytearray(written(random_rows(rng), quoting=rng.choice(QUOTING)))
        start = content.index(b"\n") + 1  # behind the header
        for _ in range(rng.randint(1, 2)):
            at = rng.randrange(start, len(content))
            insert = rng.choice([b'"', b",", b"\n", b"\r", b'""', b"x"])
            if rng.random() < 0.5:
                content[at:at] = insert
            elif content[at] < 0x80:
                del content[at]
        try:
            bytes(content).decode()
            rows = read(bytes(content))
        except (FaultyFileError, UnicodeDecodeError):
            num_refused += 1
            continue
        num_read += 1
        assert rows == records(bytes(content)), content
        assert {len(row) for row in rows} == {len(rows[0])}
    assert min(num_read, num_refused) > 10


@pytest.mark.parametrize("block", [64, 200])
def test_records_across_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_BYTES", "BLOCK_BYTES"):
        monkeypatch.setattr(f"inbatch.data.sources.csv_tables.{name}", block)
    rng = random.Random(block)
    rows = [row for _ in range(40) for row in random_rows(rng)[1:] if len(row) == 2]
    for quoting in QUOTING:
        assert read(written([HEAD, *rows], quoting=quoting), CsvRules(stated=True)) == [HEAD, *rows]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            "a,b,c\n",
            "has 3 fields in line 2, but 2 in its header: put quotes around",
        ),
        ("a,b\nc\n", "has 1 fields in line 3, but 2 in its header"),
        ('"a ""b""\nc",d\ne,f,g\n', "has 3 fields in line 4"),
        (
            '"a said,b\nc "d",e\n',
            'has a quote (") in line 3 that ends its field before its end, which began',
        ),
        ('"a "b" c",d\n', 'has a quote (") in line 2 that ends its field before its end: double'),
        ('"say \\"hi\\", he",b\n', "set «csv.escape='\\'» if backslashes escape quotes"),
        ('a,b\n"c,d\ne,f\n', "at the beginning of a field in line 3 that none closes"),
        (
            '"a,b",c\n5" pipe,d\n',
            "has a quote inside of an unquoted field in line 3, although",
        ),
        (
            'a,"b\nc,d"\ne,f\n',
            "has one quoted field in lines 2 to 3, and as many fields",
        ),
        ("a,b\0c\n", "has a NUL byte in line 2"),
        ("a,b\rc\nd,e\n", "has a carriage return alone outside of quotes in line 2"),
        ('a, "b, c"\n', "has 3 fields in line 2"),
    ],
)
def test_files_whose_quotes_or_fields_disagree(body: str, sentence: str) -> None:
    assert sentence in refused("query,positive\n" + body)


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ('5" pipe,2" valve\n', [['5" pipe', '2" valve']]),
        ('"line one\n\nline two, more",b\n', [["line one\n\nline two, more", "b"]]),
        ('"a, b","c\nd"\n\n  \ne,f', [["a, b", "c\nd"], ["e", "f"]]),
        ('"""quoted""",""\n', [['"quoted"', ""]]),
        ("a\\,b\n", [["a\\", "b"]]),
        ("a,b\r\nc,d\r\n", [["a", "b"], ["c", "d"]]),
    ],
)
def test_files_that_need_no_word(body: str, rows: Rows) -> None:
    content = ("query,positive\n" + body).encode()
    assert read(content) == read(b"\xef\xbb\xbf" + content) == [HEAD, *rows]
    if b"\r" not in content and b'"' not in content:
        assert read(content.replace(b"\n", b"\r")) == [HEAD, *rows]


def test_a_file_that_two_rules_read_differently() -> None:
    content = b'query,positive\na,"b\nc,d"\ne,f\n'
    assert read(content, CsvRules(stated=True)) == [HEAD, ["a", "b\nc,d"], ["e", "f"]]
    assert read(content, CsvRules(None, stated=True)) == [
        HEAD,
        ["a", '"b'],
        ["c", 'd"'],
        ["e", "f"],
    ]


def test_a_quote_does_not_swallow_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inbatch.data.sources.csv_tables.BLOCK_BYTES", 1 << 10)
    monkeypatch.setattr("inbatch.data.sources.csv_tables.MOST_BYTES", 1 << 20)
    lines = "".join(f"text {i},text\n" for i in range(200_000))
    message = refused(f'query,positive\na,b\n"c,d\n{lines}')
    assert message.startswith(
        "has a quoted field that begins in line 3 and holds more than 1 MiB: close it"
    )


def load(path: Path, **keys: Any) -> Source:
    [source] = load_sources(
        {"x": {"path": str(path), **keys}}, cache_dir=str(path.parent / "cache")
    )
    return source


def texts(source: Source) -> Rows:
    return source.read(np.arange(source.num_rows))[0]


def test_keys_of_a_source(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query;positive\n'a; b';\"c\n'd';e\n")
    rules = {"delimiter": ";", "quote": "'"}
    assert texts(load(path, csv=rules)) == [["a; b", "d"], ['"c', "e"]]
    path.write_text('query;positive\n"a;b"\n')
    for none in (None, "none", "null"):
        assert texts(load(path, csv={"quote": none, "delimiter": ";"})) == [['"a'], ['b"']]
    path = tmp_path / "b.tsv"
    path.write_text('query\tpositive\n"a said\tb\nc\td\n')
    with pytest.raises(
        ConfigError, match=r"line 2 that none closes: .*train\.x\.csv\.quote=null if"
    ):
        load(path)
    assert texts(load(path, csv={"quote": None})) == [['"a said', "c"], ["b", "d"]]


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"qoute": "'"}, r"csv\.qoute is not a valid key: did you mean 'quote'"),
        ({"quote": "''"}, r"csv\.quote=\"''\" is not a single ASCII character: set one, or null"),
        ({"delimiter": None}, r"csv\.delimiter=null is not a single ASCII character: set one"),
        ({"delimiter": '"'}, "gives one character two meanings"),
        ("'", "is not a mapping"),
    ],
)
def test_rules_that_no_file_has(rules: Any, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,positive\na,b\n")
    with pytest.raises(ConfigError, match=sentence):
        load(tmp_path / "a.csv", csv=rules)


def test_columns_of_several_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,positive,more\na,b,c\n")
    (tmp_path / "b.csv").write_text("positive,query\ne,d\n")
    assert texts(load(tmp_path / "*.csv")) == [["a", "d"], ["b", "e"]]
    (tmp_path / "c.csv").write_text("query,title\nf,g\n")
    with pytest.raises(ConfigError, match=r"c\.csv' has no column 'positive' but query, title"):
        load(tmp_path / "*.csv")
    (tmp_path / "c.csv").write_text("query,positive,negative\nf,g,h\n")
    with pytest.raises(
        ConfigError, match=r"c\.csv' has the columns query, positive, negative, and "
    ):
        load(tmp_path / "*.csv")
    (tmp_path / "d.csv").write_text("query,positive,positive\na,b,c\n")
    with pytest.raises(ConfigError, match="has the column 'positive' 2 times in its header"):
        load(tmp_path / "d.csv")
    (tmp_path / "e.csv").write_text(",query,positive,\n0,a,b,\n")
    assert load(tmp_path / "e.csv").roles.ignored == ("Unnamed: 0", "Unnamed: 3")


def test_what_pandas_writes(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [[cell or "x" for cell in row[:2]] for _ in range(30) for row in random_rows(rng)[1:]]
    rows = [row for row in rows if all(cell.strip() for cell in row)]
    frame = pandas.DataFrame(rows, columns=HEAD)
    for name, separator in (("a.csv", ","), ("a.tsv", "\t")):
        frame.to_csv(tmp_path / name, sep=separator, index=False)
        assert texts(load(tmp_path / name)) == [list(column) for column in zip(*rows)]


def test_rows_that_are_left_out_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'query,positive\na,b\nc,d,e\nf\n"g\nh",i\nj,\n\xff,k\nl,m\n')
    source = load(path, on_bad_row="drop")
    assert texts(source) == [["a", "g\nh", "l"], ["b", "i", "m"]]
    assert source.num_dropped == 4
    assert {each.reason: (each.count, each.places) for each in source.dropped} == {
        "with more fields than the header": (1, ("a.csv, line 3",)),
        "with fewer fields than the header": (1, ("a.csv, line 4",)),
        "that are not UTF-8": (1, ("a.csv, line 8",)),
        "with an empty (null) text in column 'positive'": (1, ("a.csv, line 7",)),
    }
    again = load(path, on_bad_row="drop")  # from the copy
    assert again.dropped == source.dropped
    with pytest.raises(ConfigError, match="column 'positive', line 7: "):
        load(path, on_bad_row="drop", on_empty="error")


def test_left_out_in_every_kind_of_source(tmp_path: Path) -> None:
    for name, body in (("a", "a,b\nc,d,e\n"), ("b", "f\ng,h\n\xa0,i\n")):
        (tmp_path / f"{name}.csv").write_text("query,positive\n" + body)
    keys = {"on_bad_row": "drop"}
    table = load(tmp_path / "*.csv", **keys)
    streamed = load(tmp_path / "*.csv", **keys, streaming=True)
    job = ShardJob(source=table, folder=tmp_path / "out" / "x", shard_rows=10)
    list(write_shards(job, open_job(job), workers=1))
    finish_job(job, versions={})
    prepared = load(tmp_path / "out" / "x")
    counts = {
        "with more fields than the header": 1,
        "with fewer fields than the header": 1,
        "with an empty text in column 'query'": 1,
    }
    for source in (table, streamed, prepared):
        assert {each.reason: each.count for each in source.dropped} == counts
        assert texts(source) == [["a", "g"], ["b", "h"]]
    report = build_report([table, streamed, prepared])
    assert json.loads(json.dumps(report.to_dict()))["sources"][1]["dropped"][0] == {
        "reason": "with more fields than the header",
        "count": 1,
        "places": ["a.csv, line 3"],
    }
    line = "- rows left out: 1 with fewer fields than the header (b.csv, line 2)"
    assert to_markdown(report).count(line) == 3
    assert report.warnings[0].startswith("3 rows of source 'x' were left out: 1 with more fields")
    frame = datasets.Dataset.from_dict({"query": ["a", " "], "positive": ["b", "c"]})
    [memory] = load_sources(
        {"x": {"path": "memory", **keys}}, tables={"x": frame}, cache_dir=str(tmp_path)
    )
    assert memory.dropped[0].describe() == (
        "1 with an empty text in column 'query' (row 1 (counted from 0))"
    )
    with pytest.raises(ConfigError, match="was prepared with on_empty=error"):
        load(prepare_strictly(tmp_path), on_empty="drop")


def prepare_strictly(folder: Path) -> Path:
    (folder / "strict.csv").write_text("query,positive\na,b\n")
    job = ShardJob(source=load(folder / "strict.csv"), folder=folder / "strict", shard_rows=10)
    list(write_shards(job, open_job(job), workers=1))
    finish_job(job, versions={})
    return job.folder
