"""Rows of JSON, parquet and arrow files: columns in use alone are read, and values of one type."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.list_rows import plain_values
from inbatch.api.rows import to_table
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.diagnose import Fault, MixedColumnError
from inbatch.data.sources.dropped import LINE
from inbatch.data.sources.files import load_files, reread, resolve_files
from inbatch.data.sources.json_types import infer
from inbatch.data.sources.load import Source, load_sources
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.data.sources.tables import Files, stream_rows
from inbatch.errors import ConfigError

PAIR = {"query": "q", "positive": "p"}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    )
    return path


def load(path: Path, **keys: Any) -> Source:
    [source] = load_sources(
        {"x": {"path": str(path), **keys}}, cache_dir=str(path.parent / "cache")
    )
    return source


def texts(source: Source) -> list[list[str]]:
    return source.read(np.arange(source.num_rows))[0]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BLOCK_BYTES", "HEAD_BYTES"):
        monkeypatch.setattr(f"inbatch.data.sources.json_tables.{name}", 4096)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    "late",
    ["text", 3, ["a"], {"b": 1}, float("nan")],
    ids=["text", "number", "list", "object", "NaN"],
)
def test_columns_without_a_role_are_never_read(late: Any, tmp_path: Path) -> None:
    rows = [{**PAIR, "note": None if i < 900 else late if i < 950 else i} for i in range(1000)]
    source = load(write(tmp_path / "a.jsonl", rows))
    assert source.num_rows == 1000
    assert source.roles.ignored == ("note",)


@pytest.mark.usefixtures("small_blocks")
def test_columns_that_begin_with_nulls(tmp_path: Path) -> None:
    rows = [{**PAIR, "label": None, "negative": None} for _ in range(2000)]
    rows += [{**PAIR, "label": 1, "negative": "n"}, {**PAIR, "label": 0.5, "negative": "n"}]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(ConfigError, match=r"no label \(null\) in column 'label', line 1"):
        load(path)
    source = load(path, on_empty="drop")
    assert (source.num_rows, source.num_dropped) == (2, 2000)
    assert source.labels().tolist() == [1.0, 0.5]  # type: ignore[union-attr]


VALUES: list[list[Any]] = [
    [None, [], [None], "a", ["b"], 1],
    [[], "a", [1], [0.5], ["b"]],
    [None, True, False, 3, 0.5],
    [True, 2, None],
    [1, [], [[]], [["a"]]],
    [{"a": None}, {}, {"b": [], "a": True}, {"b": [2], "a": 1}, {"b": "c"}],
]


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_a_type_is_the_same_found_part_by_part(values: list[Any]) -> None:
    for cut in range(len(values) + 1):
        assert infer(values[cut:], infer(values[:cut])) == infer(values)


def test_a_column_without_values_is_looked_at_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = []

    def counted(values: Iterable[Any], known: pa.DataType) -> pa.DataType:
        values = list(values)
        looked_at.append(len(values))
        return infer(values, known)

    monkeypatch.setattr("inbatch.data.sources.tables.infer", counted)
    rows = [{**PAIR, "negative": [] if i % 2 else None} for i in range(5500)]
    assert load(write(tmp_path / "a.jsonl", rows)).num_rows == 5500
    assert looked_at == [1000] * 15 + [500] * 3


BROKEN = [
    (
        '{"query": NaN, "positive": "p"}\n',
        "has NaN in column 'query', line 3, where others hold texts",
    ),
    ('{"query": 7, "positive": "p"}\n', "has the number 7 in column 'query', line 3"),
    ('{"query": true, "positive": "p"}\n', "has the truth value true in column 'query', line 3"),
    ('{"query": ["q"], "positive": "p"}\n', "has a list in column 'query', line 3"),
    ('{"query": {"t": 1}, "positive": "p"}\n', "has an object in column 'query', line 3"),
    (
        '{"query": "\\ud800", "positive": "p"}\n',
        "has half a character (a lone surrogate) in column 'query'",
    ),
    ('{"query": "a", "query": "b", "positive": "p"}\n', "has 'query' twice in line 3"),
    (
        '{"query": "a", "positive": "p"},\n',
        "has a broken line 3 (Expecting value, column 32): remove the commas",
    ),
    ('{"query": "a", "positive": "p"\n', "has a broken line 3 (Expecting ',' delimiter"),
    ('["q", "p"]\n', "has no object ({...}) in line 3"),
    ('{"query": "a\tb", "positive": "p"}\n', "has a broken line 3 (Invalid control character at"),
]


@pytest.mark.parametrize(("line", "sentence"), BROKEN)
def test_a_broken_row_is_refused_or_left_out(line: str, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [PAIR, "\n", line, {"query": "r", "positive": "s"}])
    with pytest.raises(ConfigError) as error:
        load(path)
    assert sentence in str(error.value)
    source = load(path, on_bad_row="drop")
    assert texts(source) == [["q", "r"], ["p", "s"]]
    [dropped] = source.dropped
    assert (dropped.count, dropped.places) == (1, ("a.jsonl, line 3",))


def test_rows_in_odd_but_valid_forms(tmp_path: Path) -> None:
    lines = ["\ufeff", PAIR, "\n", '  {"positive": "\\ud83d\\ude00", "query": "r"}  \r\n', "\n"]
    path = write(tmp_path / "a.jsonl", [*lines, '{"query": "w", "positive": "x"} ', PAIR])
    assert texts(load(path)) == [["q", "r", "w", "q"], ["p", "\U0001f600", "x", "p"]]
    path = tmp_path / "b.json"
    for indent in (None, 2):
        path.write_text("\ufeff" + json.dumps([PAIR, {**PAIR, "note": 1}], indent=indent))
        assert texts(load(path)) == [["q", "q"], ["p", "p"]]
    path.write_text(json.dumps([PAIR, 3]))
    with pytest.raises(ConfigError, match=r"no object \(\{\.\.\.\}\) in row 1 \(counted from 0\)"):
        load(path)
    path.write_text("[" + json.dumps(PAIR) + ",\n\n]")
    with pytest.raises(
        ConfigError, match=r"broken line [23] \(Illegal trailing comma|broken line 3"
    ):
        load(path)


@pytest.mark.usefixtures("small_blocks")
def test_one_row_of_many_in_its_line(tmp_path: Path) -> None:
    rows: list[Any] = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(2000)]
    rows[1500] = {"query": "q", "positive": 3.5}
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(ConfigError, match=r"the number 3\.5 in column 'positive', line 1501"):
        load(path)
    source = load(path, on_bad_row="drop")
    assert texts(source)[0] == [f"q{i}" for i in range(2000) if i != 1500]
    with pytest.raises(ConfigError, match="line 1501"):
        load_sources(
            {"x": {"path": str(path), "streaming": True}}, cache_dir=str(tmp_path / "streamed")
        )


@pytest.mark.parametrize("label", ["inf", "-inf", "nan", "1e39", "much", ""])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_labels_that_are_not_finite(label: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    where = {"csv": "line 4", "jsonl": "line 3", "parquet": r"row 2 \(counted from 0\)"}[suffix]
    labels = ["0", "1", label, "0.5"]
    if suffix == "csv":
        path.write_text("left,right,label\n" + "".join(f"a,b,{value}\n" for value in labels))
    elif suffix == "jsonl":
        write(path, [{"left": "a", "right": "b", "label": value} for value in labels])
    else:
        number = {"much": float("nan"), "": None}
        values = [number[v] if v in number else float(v) for v in labels]
        pq.write_table(pa.table({"left": ["a"] * 4, "right": ["b"] * 4, "label": values}), path)
    with pytest.raises(ConfigError, match=rf"label.*{where}: "):
        load(path)
    found = load(path, on_bad_row="drop")
    assert found.labels().tolist() == [0, 1, 0.5]  # type: ignore[union-attr]
    assert sum(each.count for each in found.dropped) == 1


TYPES = [
    pa.string_view(),
    pa.large_string(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int8(), pa.string()),
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_texts_of_any_arrow_type(kind: pa.DataType, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    table = pa.table({"query": pa.array(["a", "é"]).cast(kind), "positive": ["b", "c"]})
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
            out.write_table(table)
    assert texts(load(path)) == [["a", "é"], ["b", "c"]]


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    values = pa.array([b"a", b"\xff", b"c"])
    unchecked = pa.Array.from_buffers(pa.string(), 3, values.buffers())
    for number, column in enumerate((values, unchecked)):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"query": column, "positive": ["x", "y", "z"]}), path)
        with pytest.raises(ConfigError, match=r"not UTF-8 in column 'query', row 1 \(counted"):
            load(path)
        source = load(path, on_bad_row="drop")
        assert texts(source) == [["a", "c"], ["x", "z"]]
        assert source.dropped[0].places == (f"{number}.parquet, row 1 (counted from 0)",)


def test_files_that_hold_other_types(tmp_path: Path) -> None:
    for name, value in (("a", "t"), ("b", 7)):
        pq.write_table(
            pa.table({"query": ["q"], "positive": [value]}), tmp_path / f"{name}.parquet"
        )
    with pytest.raises(
        ConfigError, match=r"b\.parquet' has int64 in column 'positive', where other"
    ):
        load(tmp_path / "*.parquet")


def test_lists_and_rows_as_python_values(tmp_path: Path) -> None:
    rows = [{"query": "a", "pos": []}, {"query": "b", "pos": ["c", "d"]}, {"query": "e"}]
    files = resolve_files(str(write(tmp_path / "a.jsonl", rows)))
    table = load_files(files, Roles("query", "pos"), cache_dir=str(tmp_path))
    assert table["pos"][:] == [[], ["c", "d"], None]
    assert list(stream_rows(files)) == rows
    (tmp_path / "a.csv").write_text('query,pos\na,"b\nc"\n')
    assert list(stream_rows(resolve_files(str(tmp_path / "a.csv")))) == [
        {"query": "a", "pos": "b\nc", LINE: 2}
    ]


def test_rows_with_lists_that_are_left_out(tmp_path: Path) -> None:
    good = {"query": "a", "pos": ["b", "c"], "neg": [], "label": 1, "pos_scores": [1.0, 0.5]}
    rows = [
        good,
        "{\n",
        {**good, "pos": [1]},
        {**good, "query": " "},
        {**good, "pos": []},
        {**good, "label": 1e39},
        {**good, "pos_scores": [1.0]},
        {**good, "query": "z", "pos": ["d", ""], "pos_scores": [0.1, 0.2]},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(ConfigError, match="broken line 2"):
        load(path)
    source = load(path, on_bad_row="drop")
    assert source.ragged is not None
    assert source.ragged.read(np.arange(2)).documents == ["b", "c", "d"]
    assert source.labels().tolist() == [1, 1]  # type: ignore[union-attr]
    assert (source.num_dropped, source.num_dropped_texts) == (6, 1)
    assert [each.describe() for each in source.dropped] == [
        "1 that are no JSON (a.jsonl, line 2)",
        "1 without lists of texts in 'pos' (a.jsonl, line 3)",
        "1 with an empty text in column 'query' (a.jsonl, line 4)",
        "1 with no positive in column 'pos' (a.jsonl, line 5)",
        "1 with a label that is not a finite number in column 'label' (a.jsonl, line 6)",
        "1 with another number of scores than of positives in column 'pos_scores' (a.jsonl, line 7)",
    ]
    streamed = load(path, on_bad_row="drop", streaming=True)
    assert streamed.dropped == source.dropped
    with pytest.raises(
        ConfigError, match=r"a label that is not a finite number in column 'label', line 2"
    ):
        load(write(path, [good, rows[5]]))


def test_a_row_without_negatives_is_no_bad_row(tmp_path: Path) -> None:
    rows = [{**PAIR, "negative": "n"}, PAIR, {**PAIR, "query": 3}, {**PAIR, "negative": None}]
    path = write(tmp_path / "a.jsonl", rows)
    kept = load(path, on_bad_row="drop")
    assert (kept.is_ragged, kept.num_rows, kept.num_dropped) == (True, 3, 1)
    path = write(tmp_path / "b.jsonl", [row for row in rows if row.get("query") != 3])
    assert load(path).num_rows == 3
    assert load(path, on_empty="drop").num_rows == 1


MIXED_ROWS: list[dict[str, Any]] = [
    {"query": "a", "positive": "b", "negative": None, "positive_score": 0.5},
    {"query": "c", "positive": ["d", "e"], "negative": "f", "positive_score": [0.1, 0.2]},
    {"query": "g", "positive": "h", "negative": ["i", "j"], "positive_score": 1},
    {"query": "k", "positive": ["l"], "negative": [], "positive_score": [0.3]},
]


def documents(source: Source) -> list[list[str]]:
    """Query and documents of each row."""
    assert source.ragged is not None
    found = []
    for row in range(source.num_rows):
        read = source.ragged.read(np.array([row]))
        found.append([*read.queries, *read.documents])
    return found


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("kind", ["jsonl", "json", "streamed", "memory", "pandas", "prepared"])
def test_a_text_in_place_of_a_list_is_a_list_of_one(kind: str, first: int, tmp_path: Path) -> None:
    """Whatever the first row has; also where a block of lines has texts only."""
    rows = [*MIXED_ROWS[first:], *MIXED_ROWS[:first]]
    texts = [{**MIXED_ROWS[0], "negative": "n"}] * 60
    if kind == "json":
        path = tmp_path / "a.json"
        path.write_text(json.dumps(rows))
    elif kind in ("memory", "pandas"):
        rows = [{key: row[key] for key in ("query", "positive", "negative")} for row in rows]
        table = to_table(rows if kind == "memory" else pandas.DataFrame(rows), key="train")
        [source] = load_sources({"x": {"path": "x"}}, tables={"x": table})  # type: ignore[dict-item]
    else:
        path = write(tmp_path / "a.jsonl", rows)
    if kind in ("jsonl", "json"):
        source = load(path)
    elif kind in ("streamed", "prepared"):
        source = load(path, streaming=kind == "streamed")
    if kind == "prepared":
        job = ShardJob(source=source, folder=tmp_path / "out", shard_rows=3)
        list(write_shards(job, open_job(job), workers=1))
        finish_job(job, versions={})
        source = load(tmp_path / "out")
    listed = [["a", "b"], ["c", "d", "e", "f"], ["g", "h", "i", "j"], ["k", "l"]]
    assert documents(source) == [*listed[first:], *listed[:first]]
    assert source.read_as == "3 texts read as lists of one"
    if kind == "jsonl":
        scores = source.table(0, 4).column("positive_score").to_pylist()
        wanted = [[0.5], [0.1, 0.2], [1.0], [0.3]]
        assert scores == [*wanted[first:], *wanted[:first]]
        many = load(write(tmp_path / "b.jsonl", [*texts, *rows, *texts]))
        assert (
            documents(many)[58:66]
            == [["a", "b", "n"]] * 2 + documents(source) + [["a", "b", "n"]] * 2
        )
        assert many.num_single_texts == 3 + 2 * 120


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_files_of_texts_beside_files_of_lists(
    suffix: str, workers: int, order: str, tmp_path: Path
) -> None:
    a = [{"query": "q", "positive": "p", "negative": n} for n in ("n", None)]
    b = [{"query": "r", "positive": ["s", "t"], "negative": ["u"]}]
    paths = []
    for name in order:
        rows = {"a": a, "b": b}[name]
        paths.append(str(tmp_path / f"{name}.{suffix}"))
        if suffix == "jsonl":
            write(Path(paths[-1]), rows)
        else:
            pq.write_table(pa.Table.from_pylist(rows), paths[-1])
    cache = str(tmp_path / "cache")
    [source] = load_sources({"x": {"path": paths}}, cache_dir=cache, workers=workers)
    found = {"a": [["q", "p", "n"], ["q", "p"]], "b": [["r", "s", "t", "u"]]}
    assert documents(source) == [row for name in order for row in found[name]]
    assert source.num_single_texts == 3
    [again] = load_sources({"x": {"path": paths}}, cache_dir=cache)
    assert again.num_single_texts == 3


ARROW = {
    "list": (pa.list_(pa.string()), pa.list_(pa.int64())),
    "large": (pa.large_list(pa.large_string()), pa.large_list(pa.float64())),
    "text": (pa.string(), pa.int32()),
}


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("first", ARROW)
def test_lists_and_scores_of_other_arrow_types_in_each_file(
    first: str, suffix: str, tmp_path: Path
) -> None:
    """Whole numbers before fractions, also of labels."""
    values: dict[str, tuple[Any, Any]] = {
        "list": (["a", "b"], [1, 2**60 + 1]),
        "large": (["c", "d", "e"], [0.5, None, 2.5]),
        "text": ("f", 3),
    }
    wanted: list[Any] = []
    counts = []
    for number, name in enumerate([first, *(name for name in ARROW if name != first)]):
        (texts, scores), (of_texts, of_scores) = values[name], ARROW[name]
        columns = {
            "query": pa.array(["q"]),
            "positive": pa.array([texts], of_texts),
            "pos_score": pa.array([scores], of_scores),
            "label": pa.array([number + 0.5]) if number else pa.array([0], pa.int32()),
        }
        wanted += scores if isinstance(scores, list) else [scores]
        counts.append(len(texts))
        path = tmp_path / f"{number}.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table(columns), path)
        else:
            with path.open("wb") as file, pa.ipc.new_file(file, pa.table(columns).schema) as out:
                out.write_table(pa.table(columns))
    source = load(tmp_path / f"*.{suffix}")
    assert source.ragged is not None
    assert source.ragged.positive_counts().tolist() == counts
    assert plain_values(source.scores()) == [None if s is None else np.float32(s) for s in wanted]
    labels = source.labels()
    assert labels is not None
    assert labels.tolist() == [0, 1.5, 2.5]
    assert source.read_as == "1 text read as lists of one"


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_file_without_any_negative(order: str, tmp_path: Path) -> None:
    """Its lists have no type of texts."""
    kinds = {"a": (pa.large_list(pa.null()), []), "b": (pa.large_list(pa.large_string()), ["n"])}
    for number, name in enumerate(order):
        kind, negatives = kinds[name]
        columns = {"query": ["q"], "positive": ["p"], "negative": pa.array([negatives], kind)}
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    source = load(tmp_path / "*.parquet")
    assert source.ragged is not None
    documents = source.ragged.document_counts(np.arange(2))
    assert documents.tolist() == [1 + len(kinds[name][1]) for name in order]


def test_reading_again_ends() -> None:
    def read(files: Files) -> None:
        raise MixedColumnError("a.parquet", Fault("is odd", "mend it"), "positive")

    with pytest.raises(MixedColumnError):
        reread(Files(("a.parquet",), ".parquet"), Roles("query", "positive"), read)


def test_faults_of_rows_with_texts_and_lists(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*MIXED_ROWS, {"query": "m", "positive": ["n", " "]}])
    with pytest.raises(ConfigError, match=r"an empty text in column 'positive', line 5"):
        load(path)
    more = [{"query": ["m"], "positive": "n"}, {"query": "o", "positive": 1}]
    write(path, [*MIXED_ROWS, *more])
    with pytest.raises(ConfigError, match="has a list in column 'query', line 5, where others"):
        load(path)
    source = load(path, on_bad_row="drop")
    assert (source.num_rows, source.num_dropped, source.num_single_texts) == (4, 2, 3)
    other = write(tmp_path / "b.jsonl", [*MIXED_ROWS, {"query": "m", "positive": ["n", " "]}])
    with pytest.raises(ConfigError, match=r"column 'positive', line 5") as error:
        load_sources({"x": {"path": [str(other), str(write(tmp_path / "c.jsonl", MIXED_ROWS))]}})
    assert error.value.value == str(other)
