"""Sources whose rows have lists: read right whatever their layout, flat arrays, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.table import InMemoryTable

from helpers.distributed import run
from helpers.list_rows import list_rows
from inbatch.api.rows import to_table
from inbatch.data.hashing import hash_texts
from inbatch.data.ragged import RaggedValues
from inbatch.data.sources import list_checks
from inbatch.data.sources.checks import is_blank
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.load import load_sources, load_table
from inbatch.data.sources.locate import locate_rows
from inbatch.data.sources.source import Source
from inbatch.data.sources.spec import SourceSpec
from inbatch.data.sources.tables import Files
from inbatch.errors import ConfigError

ROWS = list_rows()


def load(path: Path | str, **options: Any) -> Source:
    [source] = load_sources({"x": {"path": str(path), **options}})
    return source


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def values_of(ragged: RaggedValues) -> list[list[int]]:
    return [part.tolist() for part in np.split(ragged.values, ragged.offsets[1:-1])]


def assert_rows(source: Source, rows: list[dict[str, Any]]) -> None:
    """The source gives these rows, in any order, and arrays that belong to them."""
    assert source.ragged is not None
    assert source.num_rows == len(rows)
    order = np.random.default_rng(1).permutation(len(rows))
    queries, documents, picks = source.ragged.read(order)
    assert queries == [rows[row]["query"] for row in order]
    assert documents == [text for row in order for text in rows[row]["pos"] + rows[row]["neg"]]
    assert picks.positives.tolist() == [len(rows[row]["pos"]) for row in order]
    assert picks.counts.tolist() == [len(rows[row]["pos"] + rows[row]["neg"]) for row in order]
    texts = [[row["query"], *row["pos"], *row["neg"]] for row in rows]
    own = [[row["query"], *row["pos"]] for row in rows]
    assert values_of(source.ragged.hashes()) == [hash_texts(each).tolist() for each in texts]
    assert values_of(source.ragged.conflict_hashes()) == [hash_texts(e).tolist() for e in own]
    assert values_of(source.ragged.lengths()) == [[len(t) for t in each] for each in texts]
    assert source.ragged.positive_counts().tolist() == [len(row["pos"]) for row in rows]


LAYOUTS = {
    "list": pa.list_(pa.string()),
    "large": pa.large_list(pa.large_string()),
    "views": pa.large_list(pa.string_view()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_lists_in_memory(layout: str) -> None:
    table = pa.Table.from_pylist(ROWS)
    for name in ("pos", "neg"):
        column = pa.array([row[name] for row in ROWS], LAYOUTS[layout])
        table = table.set_column(table.column_names.index(name), name, column)
    [source] = load_sources(
        {"x": {"path": "x"}}, tables={"x": datasets.Dataset(InMemoryTable(table))}
    )
    assert_rows(source, ROWS)


def test_files_of_lists(tmp_path: Path) -> None:
    json_lines = write_jsonl(tmp_path / "a.jsonl", ROWS)
    source = load(json_lines)
    assert_rows(source, ROWS)
    assert source.roles.lists == ("pos", "neg")
    assert (source.roles.positive_score, source.roles.negative_score) == (
        "pos_scores",
        "neg_scores",
    )
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=7)
    assert_rows(load(tmp_path / "a.parquet"), ROWS)
    assert_rows(pickle.loads(pickle.dumps(source)), ROWS)


def test_arrays_are_computed_once_and_mapped(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    for _ in range(2):
        [source] = load_sources({"x": {"path": str(path)}}, cache_dir=str(tmp_path / "cache"))
        assert_rows(source, ROWS)
        assert source.ragged is not None
        assert isinstance(source.ragged.hashes().values.base, np.memmap)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 6


@pytest.mark.parametrize("positive", ["p", ["p", "r"]], ids=["texts", "lists"])
@pytest.mark.parametrize("streaming", [False, True])
def test_arrays_follow_the_roles_of_the_columns(
    positive: Any, streaming: bool, tmp_path: Path
) -> None:
    rows = [{"query": f"q{i}", "positive": positive, "c": f"c{i}"} for i in range(3)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    empty = write_jsonl(tmp_path / "b.jsonl", [*rows, {**rows[0], "positive": ""}])
    for files in (path, empty):
        for role, columns in (("negative", 3), ("key", 2)):
            spec = {"path": str(files), "columns": {role: "c"}, "streaming": streaming}
            [source] = load_sources(
                {"x": {**spec, "on_bad_row": "drop"}}, cache_dir=str(tmp_path / "cache")
            )
            assert len(source.columns) == columns
            if source.ragged is None:
                assert source.text_hashes().shape == (columns, 3)
                continue
            documents = source.ragged.document_counts(np.arange(3))
            assert documents.tolist() == [len(positive) + columns - 2] * 3


@pytest.mark.parametrize("layout", ["one positive", "two columns of negatives", "no list"])
def test_a_text_beside_lists_is_a_list_of_one(layout: str) -> None:
    """Also a null among negatives is a row without one."""
    rows: list[dict[str, Any]] = [
        {"query": "a", "positive": "p", "negative": ["n", "m"], "negative_2": "k"},
        {"query": "b", "positive": "q", "negative": [], "negative_2": None},
        {"query": "c", "positive": "r", "negative": None, "negative_2": "k"},
    ]
    negatives = [["n", "m", "k"], [], ["k"]]
    for row in rows:
        if layout == "one positive":
            row.pop("negative_2")
        elif layout == "no list":
            row.pop("negative")
    if layout == "one positive":
        negatives = [["n", "m"], [], []]
    elif layout == "no list":
        negatives = [["k"], [], ["k"]]
    source = Source.from_columns("x", {key: [row[key] for row in rows] for key in rows[0]})
    expected = [
        {"query": row["query"], "pos": [row["positive"]], "neg": texts}
        for row, texts in zip(rows, negatives)
    ]
    assert_rows(source, expected)


def test_several_columns_of_texts_stay_columns() -> None:
    columns = {"query": ["a"], "positive": ["b"], "negative_1": ["c"], "negative_2": ["d"]}
    source = Source.from_columns("x", columns | {"pos_score": [0.5], "other": [1]})
    assert not source.is_ragged
    assert (source.roles.positive_score, source.roles.ignored) == ("pos_score", ("other",))
    assert source.read(np.arange(1))[0] == [["a"], ["b"], ["c"], ["d"]]
    with pytest.raises(TypeError, match="have lists"):
        Source.from_columns("x", {"query": ["a"], "pos": [["b"]]}).read(np.arange(1))


def test_all_rows_without_negatives() -> None:
    rows = [{"query": "a", "pos": ["b"], "neg": []}, {"query": "c", "pos": ["d", "e"], "neg": []}]
    source = Source.from_columns("x", {key: [row[key] for row in rows] for key in rows[0]})
    assert_rows(source, rows)


@pytest.mark.parametrize("name", ["positives", "Pos", "POSITIVES"])
def test_plural_names(name: str) -> None:
    source = Source.from_columns("x", {"query": ["a"], name: [["b", "c"]], "negatives": [["d"]]})
    assert source.roles.lists == (name, "negatives")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no positive": ({"pos": []}, "no positive in column 'pos', line 4"),
    "null positive": ({"pos": None}, "no positive in column 'pos', line 4"),
    "null text": ({"pos": ["b", None]}, "an empty text in column 'pos', line 4"),
    "blank text": ({"neg": ["b", " \n"]}, "an empty text in column 'neg', line 4"),
    "null query": ({"query": None}, "an empty text in column 'query', line 4"),
    "scores": ({"pos_scores": [1.0, 2.0]}, "another number of scores than of positives .*line 4"),
    "infinite": (
        {"pos_scores": [1e39]},
        "a score that is no finite number in column 'pos_scores', line 4",
    ),
}


def rows_with(fault: dict[str, Any]) -> list[dict[str, Any]]:
    row = {"query": "a", "pos": ["b"], "neg": ["c"], "pos_scores": [1.0], "neg_scores": [1.0]}
    rows = [row | {"query": f"a{number}"} for number in range(5)]
    rows[3] |= fault
    return rows


@pytest.mark.parametrize("fault", FAULTS)
def test_rows_that_are_refused(fault: str, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    path = write_jsonl(tmp_path / "a.jsonl", rows_with(change))
    with pytest.raises(ConfigError, match=message) as error:
        load(path)
    assert error.value.value == str(path)


TYPES: dict[str, tuple[dict[str, Any], str]] = {
    "lists in lists": ({"pos": [["b"]]}, "column 'pos', which holds lists inside lists"),
    "list of queries": ({"query": ["b"]}, "column 'query', which holds lists"),
    "numbers": ({"neg": [1]}, r"column 'neg', which holds list<.*int64> instead of texts"),
    "texts as scores": ({"pos_scores": ["1"]}, "column 'pos_scores', which holds .* instead of"),
}


@pytest.mark.parametrize("change", TYPES)
def test_columns_that_are_refused(change: str) -> None:
    columns, message = TYPES[change]
    row: dict[str, Any] = {"query": "a", "pos": ["b"], "neg": ["c"], **columns}
    with pytest.raises(ConfigError, match=message):
        Source.from_columns("x", {name: [value] for name, value in row.items()})


def test_texts_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counted(texts: pa.Array) -> np.ndarray:
        seen.append(len(texts))
        return is_blank(texts)

    monkeypatch.setattr("inbatch.data.sources.list_checks.is_blank", counted)
    load(write_jsonl(tmp_path / "a.jsonl", ROWS))
    assert sum(seen) == sum(1 + len(row["pos"]) + len(row["neg"]) for row in ROWS)


def _documents(rank: int, world_size: int, folder: Path) -> list[str]:
    clean = list_checks._clean

    def logged(*args: Any) -> pa.Table:
        with (folder / "log").open("a") as file:
            file.write("cleaned\n")
        return clean(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_checks, "_clean", logged)
        source = load(folder / "a.jsonl", on_empty="drop")
    assert source.ragged is not None
    return source.ragged.read(np.arange(2)).documents


def test_one_of_several_ranks_copies_rows_without_empty_texts(tmp_path: Path) -> None:
    rows = [{"query": "q", "pos": ["a", ""]}, {"query": "r", "pos": ["b"]}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert run(_documents, 2, tmp_path) == [["a", "b"]] * 2
    assert (tmp_path / "log").read_text() == "cleaned\n"


def test_what_on_empty_drops(tmp_path: Path) -> None:
    faults = [change for change, _ in FAULTS.values()][:5]
    rows = [rows_with(fault)[3] | {"sku": 1} for fault in faults]
    rows[2]["pos_scores"] = [0.1, 0.2]
    rows[3]["neg_scores"] = [0.3, 0.4]
    rows += [rows[3] | {"neg": ["c"], "neg_scores": [0.5], "sku": None}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    source = load(path, on_empty="drop", columns={"key": "sku"})
    assert (source.num_dropped, source.num_dropped_texts) == (4, 2)
    assert_rows(source, [rows[2] | {"pos": ["b"]}, rows[3] | {"neg": ["b"]}])
    scores = source.table(0, 2).select(["pos_scores", "neg_scores"]).to_pydict()
    assert scores == {"pos_scores": [[0.1], [1.0]], "neg_scores": [[1.0], [0.3]]}
    keys = source.keys()
    assert keys is not None
    assert len(keys) == 2


def test_files_are_read_again_once_for_the_places_of_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = []

    def counted(files: Files, roles: Roles, rows: Sequence[int]) -> list[tuple[str, str]]:
        located.append(rows)
        return locate_rows(files, roles, rows)

    monkeypatch.setattr("inbatch.data.sources.list_checks.BLOCK_ROWS", 2)
    monkeypatch.setattr("inbatch.data.sources.checks.locate_rows", counted)
    rows = [{"query": "a", "pos": ["b"] if n % 2 else []} for n in range(14)]
    source = load(write_jsonl(tmp_path / "a.jsonl", rows), on_empty="drop")
    [dropped] = source.dropped
    assert dropped.count == 7
    assert dropped.places == tuple(f"a.jsonl, line {n}" for n in range(1, 10, 2))
    assert located == [[0, 2, 4, 6, 8]]


def test_what_all_rows_lack_is_refused_with_the_number_dropped(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"query": "a", "pos": [" "]}] * 3)
    with pytest.raises(ConfigError, match="holds no rows"):
        load(path, on_empty="drop")


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"negatives": "random"}, "set first or sample"),
    "a column": ({"positives": "answer"}, "columns.positive"),
    "negative number": ({"max_negatives": -1}, "whole number"),
    "no number": ({"negatives": "sample"}, "max_negatives=4"),
    "no lists": ({"max_negatives": 2}, "no column holds lists"),
    "scores of nothing": (
        {"columns": {"negative_score": "other"}},
        "belongs to one column of negatives",
    ),
    "among columns": ({"columns": {"max_negatives": 2}}, "set data.train.x.max_negatives=4"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_that_are_refused(setting: str, tmp_path: Path) -> None:
    options, message = SETTINGS[setting]
    path = write_jsonl(tmp_path / "a.jsonl", [{"query": "a", "positive": "b", "other": 1.0}])
    with pytest.raises(ConfigError, match=message):
        load(path, **options)


@pytest.mark.parametrize("kind", ["dicts", "pandas", "dataset"])
def test_rows_of_a_program(kind: str) -> None:
    """Also rows of which the first has no negatives."""
    rows = [{key: row[key] for key in ("query", "pos", "neg")} for row in ROWS]
    rows[0]["neg"] = []
    sparse: list[dict[str, Any]] = [{"query": rows[0]["query"], "pos": rows[0]["pos"]}, *rows[1:]]
    frame = pandas.DataFrame(rows)
    frame["pos"] = [np.array(texts) for texts in frame["pos"]]
    given = {"dicts": sparse, "pandas": frame, "dataset": datasets.Dataset.from_list(rows)}[kind]
    table = to_table(given, key="data")
    assert table is not None
    assert_rows(load_table("x", table, SourceSpec(), field="data"), rows)


@pytest.mark.parametrize("kind", ["dicts", "pandas"])
@pytest.mark.parametrize(
    "empty",
    [np.array([]), np.array([], dtype=object), (), None, np.nan, np.float32("nan"), pandas.NA],
    ids=["floats", "objects", "tuple", "None", "NaN", "NaN of 32 bits", "NA"],
)
def test_what_a_program_has_for_lists(kind: str, empty: Any) -> None:
    """Arrays and tuples; of no negatives also what pandas has where nothing is."""
    columns = {
        "query": ["a", "b", "c"],
        "pos": [np.array(["d", "e"]), ("f",), ["g"]],
        "neg": [empty, np.array(["h"], dtype=object), ("i", "j")],
    }
    given: Any = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values())]
    if kind == "pandas":
        index = [5, 5, 7]
        given = pandas.DataFrame(
            {name: pandas.Series(values, index, object) for name, values in columns.items()}
        )
    table = to_table(given, key="data")
    assert table is not None
    negatives: list[list[str]] = [[], ["h"], ["i", "j"]]
    positives = [["d", "e"], ["f"], ["g"]]
    expected = [
        {"query": query, "pos": pos, "neg": neg}
        for query, pos, neg in zip("abc", positives, negatives)
    ]
    assert_rows(load_table("x", table, SourceSpec(), field="data"), expected)
    if kind == "pandas":
        assert isinstance(given["pos"].iloc[1], tuple)  # what was given stays as it was
