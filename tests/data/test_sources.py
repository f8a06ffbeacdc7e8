"""Every format gives the same rows; every mistake names its place."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from inbatch.data.hashing import hash_texts
from inbatch.data.sources.columns import Roles, find_roles
from inbatch.data.sources.load import Source, load_sources
from inbatch.errors import ConfigError

ROWS = [
    {"query": f"00{i}", "pos": "NA" if i == 3 else f'a, "b" é{i}', "score": i / 4, "id": i}
    for i in range(8)
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    names = list(rows[0])
    lines = [json.dumps(row) + "\n" for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
            out.write_table(table)
    elif path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as text:
            text.writelines(lines)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(lines), encoding="utf-8")
    else:
        sep = "\t" if path.suffix == ".tsv" else ","
        quote = lambda value: '"' + str(value).replace('"', '""') + '"' if value != "" else ""  # noqa: E731
        body = [sep.join(quote(row[name]) for name in names) for row in rows]
        path.write_text("\n".join([sep.join(names), *body]) + "\n", encoding="utf-8")
    return path


def load_one(spec: Any, tmp_path: Path, **options: Any) -> Source:
    [source] = load_sources({"x": spec}, cache_dir=str(tmp_path / "cache"), **options)
    return source


@pytest.mark.parametrize(
    "suffix", ["csv", "tsv", "json", "jsonl", "json.gz", "jsonl.gz", "parquet", "arrow"]
)
def test_formats_agree(suffix: str, tmp_path: Path) -> None:
    source = load_one(str(write(tmp_path / f"rows.{suffix}", ROWS)), tmp_path)
    assert (source.name, source.num_rows, source.columns) == ("x", 8, ("query", "pos"))
    assert source.has_labels
    assert source.roles.ignored == ("id",)
    rows = np.array([5, 0, 3, 5])
    texts, labels = source.read(rows)
    assert texts == [[ROWS[i][name] for i in rows] for name in ("query", "pos")]
    assert labels is not None
    assert labels.dtype == np.float32
    assert labels.tolist() == [ROWS[i]["score"] for i in rows]


def test_lists_globs_and_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "a [1] b"
    folder.mkdir()
    write(folder / "p2.parquet", ROWS[4:])
    write(folder / "p1.parquet", ROWS[:4])
    by_glob = load_one(f"{tmp_path}/a*/p*.parquet", tmp_path)
    by_list = load_one([str(folder / "p2.parquet"), str(folder / "p1.parquet")], tmp_path)
    assert by_glob.read(np.arange(8))[0][0] == [row["query"] for row in ROWS]
    assert by_list.read(np.arange(8))[0][0] == [row["query"] for row in ROWS[4:] + ROWS[:4]]


def test_several_sources_limit_columns_and_prompts(tmp_path: Path) -> None:
    path = str(write(tmp_path / "rows.parquet", ROWS))
    spec = {
        "first": path,
        "second": {
            "path": path,
            "limit": 3,
            "columns": {"query": "pos", "positive": "query"},
            "prompts": {"query": "q: "},
        },
    }
    first, second = load_sources(spec, cache_dir=str(tmp_path))
    assert (first.name, first.num_rows, first.prompts) == ("first", 8, {})
    assert (second.name, second.num_rows, second.columns) == ("second", 3, ("pos", "query"))
    assert second.prompts == {"query": "q: "}
    assert not second.has_labels
    [whole] = load_sources(path, field="data.train", cache_dir=str(tmp_path))
    assert whole.name == "train"


def test_read_in_any_order_over_many_chunks(tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "pos": f"p{i}"} for i in range(3500)]
    source = load_one(str(write(tmp_path / "rows.jsonl", rows)), tmp_path)
    order = np.random.default_rng(0).permutation(3500)
    assert source.read(order)[0][1] == [f"p{i}" for i in order]
    assert source.read(np.array([], dtype=np.int64))[0] == [[], []]
    for wrong in (-1, 3500):
        with pytest.raises(IndexError):
            source.read(np.array([wrong]))


def test_a_shuffled_dataset_keeps_its_order() -> None:
    texts = {"query": [f"q{i}" for i in range(20)], "pos": [f"p{i}" for i in range(20)]}
    dataset = datasets.Dataset.from_dict(texts).shuffle(seed=0)
    source = Source("x", dataset, find_roles(dataset.column_names))
    assert source.read(np.arange(20))[0][1] == list(dataset["pos"]) != texts["pos"]


def test_remote_paths_go_through_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Offline mode refuses every remote path; a file system in memory needs no network.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    local = write(tmp_path / "rows.csv", ROWS)
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/rows-1.csv", local.read_bytes())
    source = load_one("memory://bucket/rows-*.csv", tmp_path)
    assert source.read(np.arange(8))[0][0] == [row["query"] for row in ROWS]
    with pytest.raises(ConfigError, match="choose one of rows-1"):
        load_one("memory://bucket/cols-*.csv", tmp_path)


def test_hashes_are_xxhash64_and_kept_on_disk(tmp_path: Path) -> None:
    source = load_one(str(write(tmp_path / "rows.parquet", ROWS)), tmp_path)
    hashes = source.text_hashes()
    expected = [[xxhash.xxh64_intdigest(r[c].encode()) for r in ROWS] for c in ("query", "pos")]
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == expected
    [file] = (tmp_path / "cache").glob("text_hashes-*.npy")
    np.save(file, np.zeros((2, 8), dtype=np.uint64))
    again = load_one(str(tmp_path / "rows.parquet"), tmp_path)
    assert not again.text_hashes().any(), "the stored hashes were not used"
    other = load_one({"path": str(tmp_path / "rows.parquet"), "limit": 7}, tmp_path)
    assert other.text_hashes().tolist() == [row[:7] for row in expected]


def test_stored_hashes_belong_to_the_roles(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_dict({"a": ["x"], "b": ["y"]})
    one, two = (Source("x", dataset, Roles(*names), cache_dir=tmp_path) for names in ("ab", "ba"))
    assert one.text_hashes()[::-1].tolist() == two.text_hashes().tolist()


def test_pickles_as_a_path(tmp_path: Path) -> None:
    rows = [{"query": f"q{i} " * 20, "pos": f"p{i}"} for i in range(2000)]
    source = load_one(str(write(tmp_path / "rows.parquet", rows)), tmp_path)
    source.read(np.arange(5))
    source.text_hashes()
    data = pickle.dumps(source)
    assert len(data) < 20_000
    assert pickle.loads(data).read(np.array([1999]))[0][1] == ["p1999"]


@pytest.mark.parametrize("text", ["", "  "])
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_an_empty_text_names_file_column_and_row(tmp_path: Path, suffix: str, text: str) -> None:
    write(tmp_path / f"a.{suffix}", [{"query": "q", "pos": "p"}] * 5)
    write(tmp_path / f"b.{suffix}", [{"query": "q", "pos": p} for p in ("x", "y", text, "z")])
    spec = {"path": f"{tmp_path}/*.{suffix}"}
    where = "line 3: " if suffix == "jsonl" else r"row 2 \(counted from 0\)"
    with pytest.raises(ConfigError, match=rf"b\.{suffix}' .*column 'pos', {where}.*on_empty=drop"):
        load_one(spec, tmp_path, field="data.train")
    assert load_one({**spec, "on_empty": "drop"}, tmp_path).num_dropped == 1


def test_null_text_names_file_column_and_row(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [{"query": "q", "pos": "p"}] * 5)
    write(tmp_path / "b.parquet", [{"query": "q", "pos": p} for p in ("x", "", "y", None)])
    field = "data.train"
    with pytest.raises(ConfigError, match=r"b\.parquet' .*column 'pos', row 3 .*on_empty=drop"):
        load_one(f"{tmp_path}/*.parquet", tmp_path, field=field)
    source = load_one({"path": f"{tmp_path}/*.parquet", "on_empty": "drop"}, tmp_path)
    assert (source.num_rows, source.num_dropped) == (7, 2)
    texts, _ = source.read(np.array([6, 5, 0]))
    assert texts[1] == ["y", "x", "p"]
    assert source.text_hashes()[1, [6, 5, 0]].tolist() == hash_texts(texts[1]).tolist()
    assert source.text_lengths().shape == (2, 7)


def test_empty_csv_field_is_null_and_a_column_of_them_too(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.csv", [{"query": "q", "pos": ""}, {"query": "r", "pos": ""}]))
    with pytest.raises(ConfigError, match="column 'pos', line 2"):
        load_one(path, tmp_path)
    with pytest.raises(ConfigError, match="holds no rows"):
        load_one({"path": path, "on_empty": "drop"}, tmp_path)


def test_truth_values_of_a_csv_file(tmp_path: Path) -> None:
    rows = [{"query": "q", "pos": "p", "label": value} for value in ("True", "false", "FALSE")]
    labels = load_one(str(write(tmp_path / "a.csv", rows)), tmp_path).labels()
    assert labels is not None
    assert labels.tolist() == [1.0, 0.0, 0.0]


def test_white_space_is_no_text(tmp_path: Path) -> None:
    rows = [{"query": query, "pos": "p"} for query in ("red phone", " \t", " usb ")]
    path = str(write(tmp_path / "a.jsonl", rows))
    with pytest.raises(ConfigError, match="column 'query', line 2"):
        load_one(path, tmp_path)
    kept = load_one({"path": path, "on_empty": "drop"}, tmp_path)
    assert kept.text_lengths()[0].tolist() == [9, 3]
    assert kept.read(np.arange(kept.num_rows))[0][0] == ["red phone", " usb "]


@pytest.mark.parametrize("label", [None, "nan", "high", "true"])
def test_labels_must_be_numbers(label: str | None, tmp_path: Path) -> None:
    rows = [{"query": "q", "pos": "p", "label": value} for value in ("0.5", label)]
    path = str(write(tmp_path / "a.jsonl", rows))
    with pytest.raises(ConfigError, match="label"):
        load_one(path, tmp_path)


def test_bool_and_integer_labels(tmp_path: Path) -> None:
    for labels in ([True, False], [1, 0]):
        source = Source.from_columns(
            "x", {"left": ["a", "b"], "right": ["c", "d"], "label": labels}
        )
        read = source.labels()
        assert read is not None
        assert read.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("{dir}/none-*.parquet", "matches no file: choose one of rows.parquet, rows.txt in {dir}"),
        ("{dir}/rosw.parquet", "did you mean {dir}/rows.parquet"),
        ("{dir}", "is a folder"),
        ("{dir}/rows.txt", "unknown suffix '.txt'"),
        ([], "names no file"),
        (["{dir}/rows.parquet", "{dir}/r*.parquet"], "twice"),
        ({"path": "{dir}/rows.parquet", "hub": "a/b"}, "either a path or a hub name"),
        ({}, "either a path or a hub name"),
        ({"pathh": "x"}, "did you mean 'path'"),
        ({"path": "{dir}/rows.parquet", "limit": 0}, "limit=0"),
        ({"path": "{dir}/rows.parquet", "on_empty": "skip"}, "on_empty='skip'"),
        ({"path": "{dir}/rows.parquet", "prompts": {"passages": "p"}}, "did you mean 'passage'"),
        (
            {"path": "{dir}/rows.parquet", "columns": {"query": "id", "positive": "pos"}},
            "column 'id', which holds int64",
        ),
        ({"hub": "nobody/nothing"}, "hub='nobody/nothing'"),
    ],
)
def test_mistakes_name_field_value_and_fix(spec: Any, word: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "rows.parquet", ROWS)
    (folder / "rows.txt").write_text("x")
    filled = json.loads(json.dumps(spec).replace("{dir}", str(folder)))
    with pytest.raises(ConfigError) as error:
        load_one(filled, tmp_path)
    message = str(error.value)
    assert message.startswith("data.train.x")
    assert word.replace("{dir}", str(folder)) in message
    assert not message.endswith(".")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "text"), [("a.jsonl", '{"query": "q"\n{"x"'), ("b.csv", "")])
def test_broken_files(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        load_one(str(tmp_path / name), tmp_path)


def test_files_that_differ_in_columns(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [{"query": "q", "pos": "p"}])
    write(tmp_path / "b.csv", [{"query": "q", "positive": "p"}])
    with pytest.raises(ConfigError, match="same columns"):
        load_one(f"{tmp_path}/*.csv", tmp_path)


@pytest.mark.parametrize(
    ("path", "columns", "labels", "num_rows"),
    [
        ("wdc_lspc/*/triplets_train.parquet", ("query", "pos", "neg"), False, 13657),
        ("wdc_lspc/cameras/train_large.parquet", ("left", "right"), True, 15092),
        ("cpv/pairs_train.parquet", ("query", "pos"), False, 22612),
        ("korean_std_terms/pairs_train.parquet", ("query", "pos"), False, 3972),
        ("korsts/train.parquet", ("sentence1", "sentence2"), True, 5749),
        ("stsb/en/train.parquet", ("sentence1", "sentence2"), True, 5749),
    ],
)
def test_real_data(
    path: str,
    columns: tuple[str, ...],
    labels: bool,
    num_rows: int,
    real_data: Path,
    tmp_path: Path,
) -> None:
    source = load_one(str(real_data / path), tmp_path)
    assert (source.columns, source.has_labels, source.num_rows) == (columns, labels, num_rows)
    table = pa.concat_tables(
        [pq.read_table(file, columns=list(columns)) for file in sorted(real_data.glob(path))]
    )
    rows = np.random.default_rng(0).permutation(num_rows)[:500]
    texts, _ = source.read(rows)
    assert texts == [table.column(name).take(pa.array(rows)).to_pylist() for name in columns]
