"""Formats of records: recognised from a file alone, each row as it should be, and what is refused."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.distributed import run
from inbatch.data.formats.base import Head, Row
from inbatch.data.formats.conversion import Conversion
from inbatch.data.formats.convert import convert
from inbatch.data.formats.read import Formatted, read_format
from inbatch.data.report.build import build_report
from inbatch.data.report.text import to_markdown
from inbatch.data.sources.dropped import OF_TEXTS
from inbatch.data.sources.load import load_sources
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.data.sources.spec import parse_spec
from inbatch.errors import ConfigError


def lines(path: Path, *records: Any) -> Path:
    path.write_text("\n".join(map(json.dumps, records)) + "\n")
    return path


def read(path: Path, **keys: Any) -> Formatted:
    field = "data.train.pairs"
    spec = parse_spec({"path": str(path), **keys}, field=field)
    return read_format(spec, field=field, cache_dir=str(path.parent / "cache"))


def rows(found: Formatted) -> list[dict[str, Any]]:
    assert found.table is not None
    return [dict(row) for row in found.table]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


TEVATRON = {
    "query_id": "1",
    "query": "q",
    "positive_passages": [{"docid": "1", "title": "t", "text": "p"}],
    "negative_passages": [{"docid": "2", "title": "", "text": "n"}, {"docid": "3", "text": "m"}],
}
MESSAGES = {
    "messages": user("q"),
    "positive_messages": [user("p"), user("o")],
    "negative_messages": [user("n")],
}
EXAMPLES = [
    ("tevatron", TEVATRON, {"query": "q", "positive": "t p", "negative": ["n", "m"]}),
    ("messages", MESSAGES, {"query": "q", "positive": ["p", "o"], "negative": "n"}),
    (
        "messages",
        {"messages": user("q"), "positive_messages": [user("p")], "label": 0.8},
        {"query": "q", "positive": "p", "label": 0.8},
    ),
    (
        "query_response",
        {"query": "q", "response": "p", "rejected_response": ["n", "m"]},
        {"query": "q", "positive": "p", "negative": ["n", "m"]},
    ),
    ("sets", {"set": ["q", "p", "o"]}, {"query": "q", "positive": ["p", "o"]}),
    (
        "sets",
        {"set": {"query": "q", "pos": ["p"], "neg": ["n", "m"]}},
        {"query": "q", "positive": "p", "negative": ["n", "m"]},
    ),
    ("arrays", ["q", "p"], {"query": "q", "positive": "p"}),
    ("arrays", ["q", "p", "n"], {"query": "q", "positive": "p", "negative": "n"}),
]


@pytest.mark.parametrize(("name", "record", "row"), EXAMPLES)
@pytest.mark.parametrize("form", ["jsonl", "gz", "list"])
def test_a_format_is_recognised_and_read(
    name: str, record: Any, row: dict[str, Any], form: str, tmp_path: Path
) -> None:
    path = lines(tmp_path / "a.jsonl", record, record)
    if form == "gz":
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "a.jsonl.gz"
    elif form == "list" and isinstance(record, dict):
        path = tmp_path / "a.json"
        path.write_text(json.dumps([record, record], indent=1))
    found = read(path)
    assert found.read_as.startswith(f"read as {name}, since its ")
    assert rows(found) == [row, row]


def test_rows_of_different_lengths_have_lists(tmp_path: Path) -> None:
    found = read(lines(tmp_path / "a.jsonl", ["q", "p"], ["r", "o", "n", "m"]))
    assert rows(found) == [
        {"query": "q", "positive": "p", "negative": []},
        {"query": "r", "positive": "o", "negative": ["n", "m"]},
    ]


def test_a_template_joins_the_fields_of_a_passage(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", TEVATRON)
    found = read(path, format={"template": "{text} ({docid})"})
    assert rows(found)[0]["positive"] == "p (1)"


def test_a_conversion_is_made_once(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ["q", "p"], ["r", "o"])
    first = read(path)
    (folder,) = (tmp_path / "cache").glob("format-*")
    made = (folder / "rows.arrow").stat().st_mtime_ns
    again = read(path)
    assert (folder / "rows.arrow").stat().st_mtime_ns == made
    assert again.table is not None
    assert first.table is not None
    assert again.table._fingerprint == first.table._fingerprint
    lines(path, ["q", "p"], ["r", "other"])
    assert rows(read(path))[1]["positive"] == "other"


@dataclass(frozen=True)
class Logged:
    """Writes a line to a file for each record."""

    path: str
    joined = ""

    def recognise(self, head: Head) -> str:
        return ""

    def row(self, record: Any) -> Row:
        with Path(self.path).open("a") as file:
            file.write("row\n")
        return Row(record[0], record[1:], [])


def _convert(rank: int, world_size: int, folder: Path) -> list[dict[str, Any]]:
    conversion = Conversion(Logged(f"{folder}/log"))
    records = [(lambda: "a.jsonl, line 1", ["q", "p"])] * 3
    return list(convert(conversion, lambda: records, folder=folder, fingerprint="f").table)


def test_one_of_several_ranks_converts(tmp_path: Path) -> None:
    found = run(_convert, 2, tmp_path)
    assert found == 2 * [3 * [{"query": "q", "positive": "p"}]]
    assert (tmp_path / "log").read_text() == 3 * "row\n"


def test_a_key_stays_with_its_row(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl",
        {"query": "q", "response": "p", "product": 7},
        {"query": "r", "response": "o", "product": "x"},
    )
    found = read(path, columns={"key": "product"})
    assert [row["product"] for row in rows(found)] == ["7", "x"]
    assert found.roles.key == "product"


BAD = [
    (["q", "p"], ["q"], "has no positive in line 2", "data.train.pairs.on_empty=drop"),
    (["q", "p"], {"query": "q"}, "holds an object in line 2", "give a list of texts"),
    (
        ["q", "p"],
        ["q", 3],
        "has 3 as one of its texts in line 2",
        "set data.train.pairs.on_bad_row=drop",
    ),
    ({"set": ["q", "p"]}, {"set": ["q"]}, "has no positive in line 2", "on_empty=drop"),
    (TEVATRON, {**TEVATRON, "positive_passages": []}, "has no positive in line 2", "on_empty=drop"),
    (
        TEVATRON,
        {**TEVATRON, "positive_passages": ["p"]},
        "has 'p' in positive_passages in line 2",
        "give objects with a title and a text",
    ),
    (TEVATRON, {**TEVATRON, "query": None}, "has an empty text as its query in line 2", "fill it"),
    (TEVATRON, {**TEVATRON, "query": " "}, "has an empty text as its query", "on_empty=drop"),
    (
        MESSAGES,
        {**MESSAGES, "positive_messages": user("p")},
        "has a single message where positive_messages needs a list of messages in line 2",
        "write it as",
    ),
    (MESSAGES, {**MESSAGES, "images": ["a.png"]}, "has images, and only texts", "remove"),
]


@pytest.mark.parametrize(("good", "bad", "problem", "fix"), BAD)
def test_a_record_that_no_row_can_be_made_of_is_refused_with_its_line(
    good: Any, bad: Any, problem: str, fix: str, tmp_path: Path
) -> None:
    path = lines(tmp_path / "a.jsonl", good, bad)
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        read(path)
    assert fix in caught.value.fix
    assert (caught.value.key, caught.value.value) == ("data.train.pairs.path", str(path))


NLI = {"premise": "q", "hypothesis": "p", "label": "entailment"}
# A good record of each format, what in it is empty, and what in it is broken.
WITHOUT = [
    (TEVATRON, {"positive_passages": []}, {"positive_passages": "p"}),
    (TEVATRON, {"positive_passages": None}, {"positive_passages": [1]}),
    (TEVATRON, {"positive_passages": [None]}, {"query": 3}),
    (MESSAGES, {"positive_messages": []}, {"positive_messages": 1}),
    (MESSAGES, {"messages": None}, {"images": ["a.png"]}),
    (MESSAGES, {"messages": user("")}, {"messages": ["q"]}),
    ({"query": "q", "response": "p"}, {"response": None}, {"response": 1}),
    ({"query": "q", "response": "p"}, {"response": []}, {"response": "o", "rejected_response": 2}),
    ({"set": ["q", "p"]}, {"set": ["q"]}, {"set": "q"}),
    ({"set": ["q", "p"]}, {"set": []}, {"set": [1, 2]}),
    ({"set": {"query": "q", "pos": ["p"]}}, {"set": {"query": "q", "pos": []}}, {"set": 1}),
    (NLI, {"hypothesis": None}, {"hypothesis": 2}),
    (NLI, {"premise": ""}, {"label": "perhaps"}),
]


@pytest.mark.parametrize(("good", "empty", "broken"), WITHOUT, ids=range(len(WITHOUT)))
def test_every_format_obeys_on_empty_and_on_bad_row(
    good: dict[str, Any], empty: dict[str, Any], broken: dict[str, Any], tmp_path: Path
) -> None:
    for key, other, change in (
        ("on_empty", "on_bad_row", empty),
        ("on_bad_row", "on_empty", broken),
    ):
        path = lines(tmp_path / f"{key}.jsonl", good, {**good, **change})
        with pytest.raises(ConfigError, match=f"in line 2: .*data.train.pairs.{key}=drop"):
            read(path, **{other: "drop", key: "error"})
        found = read(path, **{key: "drop", other: "error"})
        assert len(rows(found)) == 1
        assert [each.count for each in found.left_out] == [1]


def test_such_records_are_counted_on_request(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "a.jsonl", ["q", "p"], ["q"], ["r", "o"], ["s"], ["t", " "], ["u", "n", ""]
    )
    found = read(path, on_bad_row="drop", on_empty="drop")
    assert [row["query"] for row in rows(found)] == ["q", "r", "u"]
    left = {each.reason: (each.count, each.places) for each in found.left_out}
    assert left == {
        "without a positive": (2, (f"{path}, line 2", f"{path}, line 4")),
        "with an empty text": (1, (f"{path}, line 5",)),
        "with empty texts beside others, which are left out": (1, (f"{path}, line 6",)),
    }
    assert read(path, on_bad_row="drop", on_empty="drop").left_out == found.left_out


def test_a_broken_line_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ["q", "p"])
    path.write_text(path.read_text() + '["r", "o"\n')
    with pytest.raises(ConfigError, match=r"is not JSON \(Expecting ',' .* in line 2: correct it"):
        read(path)
    path.write_bytes(path.read_bytes() + b'["s", "\xfc"]\n["t", "n"]\n')
    found = read(path, on_bad_row="drop")
    assert [row["query"] for row in rows(found)] == ["q", "t"]
    assert sum(each.count for each in found.left_out) == 2


def test_flag_embedding_is_read_as_columns_with_its_prompt(tmp_path: Path) -> None:
    record = {"query": "q", "pos": ["p"], "neg": [], "prompt": "Find: "}
    path = lines(tmp_path / "a.jsonl", record, {**record, "query": "r"})
    found = read(path)
    assert found.read_as == "read as flag_embedding, since its records have query and a list pos"
    assert found.table is None
    assert found.roles.texts == ("query", "pos", "neg")
    assert found.prompts == {"query": "Find: "}
    assert (found.roles.prompt, found.roles.ignored) == ("prompt", ())
    unread = read(path, format={"prompt": "ignore"})
    assert (unread.prompts, unread.roles.ignored) == (None, ("prompt",))
    assert read(path, prompts={"query": "Mine: "}).prompts == {"query": "Mine: "}
    lines(path, record, {**record, "prompt": "Other: "})
    with pytest.raises(
        ConfigError, match=r"has 2 prompts in the column 'prompt' \('Find: ', 'Other: '\)"
    ):
        read(path)


def test_columns_of_texts_are_no_format(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"query": "q", "pos": "p", "neg": "n"})
    assert (read(path).read_as, read(path).table) == ("", None)


def test_named_columns_are_read_as_they_stand(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"query": "q", "response": "p"})
    found = read(path, columns={"query": "response", "positive": "query"})
    assert (found.read_as, found.roles.texts) == ("", ("response", "query"))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("tevatorn", "data.train.pairs.format='tevatorn' is not a format: did you mean 'tevatron'"),
        (
            {"tmplate": "{text}"},
            "format.tmplate is not a key of any format: did you mean 'template'",
        ),
        ({"name": "tevatron", "prompt": "use"}, "format.prompt is not a valid key"),
        ({"template": "title"}, None),
        ({"name": "tevatron", "template": "title"}, "format.template='title' names no field"),
        ({"labels": ["entailment"]}, None),
        (3, "format=3 is not a format: choose from auto, arrays"),
    ],
)
def test_a_wrong_format_is_refused_before_a_file_is_opened(value: Any, problem: str | None) -> None:
    spec = {"path": "nowhere.jsonl", "format": value}
    if problem is None:  # which format it is follows from the file
        parse_spec(spec, field="data.train.pairs")
        return
    with pytest.raises(ConfigError, match=re.escape(problem)):
        parse_spec(spec, field="data.train.pairs")


def test_a_hub_data_set_is_recognised_too(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    lines(tmp_path / "hub" / "train.jsonl", TEVATRON, TEVATRON)
    spec = parse_spec({"hub": str(tmp_path / "hub")}, field="data.train")
    found = read_format(spec, field="data.train", cache_dir=str(tmp_path / "cache"))
    assert found.read_as.startswith("read as tevatron")
    assert rows(found)[0] == {"query": "q", "positive": "t p", "negative": ["n", "m"]}
    spec = parse_spec({"hub": str(tmp_path / "hub"), "format": "beir"}, field="data.train")
    with pytest.raises(ConfigError, match="format='beir' reads several files, and a hub data set"):
        read_format(spec, field="data.train", cache_dir=str(tmp_path / "cache"))


def test_streamed_records_are_rows_with_lists(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", ["q", "p"], ["q"], ["r", "o", "n"])
    lines(tmp_path / "b.jsonl", ["s", "m", "l", "k"])
    keys = {"path": f"{tmp_path}/*.jsonl", "streaming": True, "on_bad_row": "drop"}
    (source,) = load_sources({"pairs": keys}, cache_dir=str(tmp_path / "cache"))
    assert source.read_as.startswith("read as arrays")
    assert source.ragged is not None
    found = source.ragged.read(np.arange(3))
    assert (found.queries, found.documents) == (["q", "r", "s"], ["p", "o", "n", "m", "l", "k"])
    assert found.picks.counts.tolist() == [1, 2, 3]
    assert [(each.count, each.places) for each in source.dropped] == [
        (1, (f"{tmp_path}/a.jsonl, line 2",))
    ]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_are_left_out_are_counted_without_texts(streaming: bool, tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", ["q", "p", ""], ["r", "o", "n"], ["s", "m", "l"])
    lines(tmp_path / "b.jsonl", ["s"], ["t", " "], ["u", "m", "", "k"])
    keys = {"path": f"{tmp_path}/*.jsonl", "streaming": streaming, "on_bad_row": "drop"}
    (source,) = load_sources({"pairs": keys}, cache_dir=str(tmp_path / "cache"))
    assert (source.num_rows, source.num_dropped) == (4, 2)
    assert sum(each.count for each in source.dropped) == 4


def test_pairs_without_a_row_are_texts(tmp_path: Path) -> None:
    pairs = [("a", "b", 0), ("a", "b", 0), ("a", "c", 2), ("d", "e", 2)]
    rows = [dict(zip(("premise", "hypothesis", "label"), pair)) for pair in pairs]
    path = lines(tmp_path / "a.jsonl", *rows)
    (source,) = load_sources({"nli": str(path)}, cache_dir=str(tmp_path / "cache"))
    assert (source.num_rows, source.num_dropped) == (1, 0)
    assert sorted(each.reason for each in source.dropped) == sorted(OF_TEXTS[1:])
    said = "4 pairs read, 2 used in 1 rows, 2 left out"
    assert source.intake.describe() == said
    page = to_markdown(build_report([source]))
    assert f"\n{said}.\n" in page
    assert "2 pairs of source 'nli' were left out: 1 " in page
    assert "- pairs left out: 1 given a second time" in page
    job = ShardJob(source=source, folder=tmp_path / "p", shard_rows=9)
    list(write_shards(job, open_job(job), workers=1))
    finish_job(job, versions={})
    (prepared,) = load_sources({"nli": str(tmp_path / "p")})
    assert (prepared.intake, prepared.dropped) == (source.intake, source.dropped)


def test_texts_of_rows_are_no_rows_that_are_left_out(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ["q", "p", ""], ["r", "o", "n"], ["s"])
    keys = {"path": str(path), "on_bad_row": "drop"}
    (source,) = load_sources({"a": keys}, cache_dir=str(tmp_path / "cache"))
    report = build_report([source])
    assert report.sources[0].intake.describe() == "3 rows read, 2 used, 1 left out"
    assert report.warnings[:2] == (
        f"1 rows of source 'a' were left out: 1 without a positive ({path}, line 3).",
        "1 rows of source 'a' are used without some of their texts: 1 with empty texts beside others, "
        f"which are left out ({path}, line 1).",
    )


def test_a_key_of_another_format_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", ["q", "p"])
    with pytest.raises(ConfigError, match="was not recognised as such"):
        read(path, format={"template": "{text}"})
