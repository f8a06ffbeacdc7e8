"""Scores of a teacher: from any kind of data into batches, each beside its document; and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.list_rows import list_rows, plain_values, score_of
from helpers.tiny import tiny_tokenizer
from inbatch.api.rows import to_table
from inbatch.data.collate import BatchDataset, Collator, check_mixable
from inbatch.data.hashing import hash_texts
from inbatch.data.plan.plan import PlannedSlice
from inbatch.data.report.build import build_report
from inbatch.data.report.text import count_lines
from inbatch.data.sources.load import Source, load_sources, load_table
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.data.sources.spec import SourceSpec
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError
from inbatch.losses import MarginMSE, Matryoshka, MultipleNegativesRanking
from inbatch.run.compatibility import check_loss
from inbatch.run.datamodule import describe_tokenizer

LISTS = list_rows()
COLUMNS: list[dict[str, Any]] = [
    {
        "query": row["query"],
        "positive": row["pos"][0],
        "negative": f"grey {row['query']}",
        "positive_score": score_of(number, "positive"),
        "negative_score": score_of(number, "negative"),
    }
    for number, row in enumerate(LISTS)
]
# Whole numbers first, a row without a list of scores, one without negatives.
LISTS[0]["pos_scores"] = [number for number, _ in enumerate(LISTS[0]["pos"])]
LISTS[1]["neg_scores"] = None
LISTS[2] |= {"neg": [], "neg_scores": []}
ROWS = {"lists": LISTS, "columns": COLUMNS}


def expected(row: dict[str, Any]) -> list[float | None]:
    """The scores of a row's documents."""
    if "pos" not in row:
        return [row["positive_score"], row["negative_score"]]
    positives, negatives = row["pos_scores"], row["neg_scores"]
    return [*positives, *(negatives or [None] * len(row["neg"]))]


def tokenizer() -> TextTokenizer:
    return TextTokenizer(hf=tiny_tokenizer(), max_length=12)


def load(path: Path | str, **options: Any) -> Source:
    cache = options.pop("cache_dir", None)
    [source] = load_sources({"x": {"path": str(path), **options}}, cache_dir=cache)
    return source


def from_jsonl(rows: list[dict[str, Any]], folder: Path, **options: Any) -> Source:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(path, **options)


def from_parquet(rows: list[dict[str, Any]], folder: Path) -> Source:
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "rows.parquet", row_group_size=7)
    return load(folder / "rows.parquet")


def from_csv(rows: list[dict[str, Any]], folder: Path) -> Source:
    """Lists as JSON, and nothing where there are none."""
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            listed = {key: json.dumps(v) if isinstance(v, list) else v for key, v in row.items()}
            writer.writerow(listed)
    return load(folder / "rows.csv", **({"lists": True} if "pos" in rows[0] else {}))


def prepared(
    rows: list[dict[str, Any]], folder: Path, *, tokens: bool = False, **options: Any
) -> Source:
    raw, extra = from_jsonl(rows, folder), {}
    if tokens:
        prompts = Collator(tokenizer=tokenizer()).column_prompts(raw)
        extra = {
            "tokenize": tokenizer(),
            "tokens": describe_tokenizer(tokenizer(), prompts),
        }
    job = ShardJob(source=raw, folder=folder / "out", shard_rows=16, **extra)  # type: ignore[arg-type]
    list(write_shards(job, open_job(job), workers=1))
    finish_job(job, versions={})
    source = load(folder / "out", **options)
    assert isinstance(getattr(source.scores(), "base", None), np.memmap)
    return source


def with_tokens(rows: list[dict[str, Any]], folder: Path, **options: Any) -> Source:
    return prepared(rows, folder, tokens=True, **options)


def streamed(rows: list[dict[str, Any]], folder: Path, **options: Any) -> Source:
    for number in range(3):
        lines = [json.dumps(row) + "\n" for row in rows[15 * number : 15 * number + 15]]
        (folder / f"part-{number}.jsonl").write_text("".join(lines))
    return load(
        folder / "part-*.jsonl",
        streaming=True,
        buffer_files=2,
        cache_dir=str(folder / "c"),
        **options,
    )


def in_memory(make: Callable[[list[dict[str, Any]]], Any]) -> Callable[..., Source]:
    def source(rows: list[dict[str, Any]], folder: Path) -> Source:
        table = to_table(make(rows), key="data")
        assert table is not None
        return load_table("x", table, SourceSpec(), field="data")

    return source


WAYS: dict[str, Callable[..., Source]] = {
    "jsonl": from_jsonl,
    "parquet": from_parquet,
    "csv": from_csv,
    "prepared": prepared,
    "tokens": with_tokens,
    "streamed": streamed,
    "dicts": in_memory(list),
    "pandas": in_memory(pandas.DataFrame),
    "dataset": in_memory(datasets.Dataset.from_list),
}


def without_some(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As numbers in a csv file's lists, which has no null there."""
    return [
        {
            key: [0.5 if v is None else v for v in value] if isinstance(value, list) else value
            for key, value in row.items()
        }
        for row in rows
    ]


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("way", WAYS)
def test_any_data_give_each_document_its_score(way: str, kind: str, tmp_path: Path) -> None:
    rows = without_some(ROWS[kind]) if (way, kind) == ("csv", "lists") else ROWS[kind]
    source = WAYS[way](rows, tmp_path)
    assert source.is_ragged is (kind == "lists")
    order = np.random.default_rng(1).permutation(len(rows))[:25]
    dataset = BatchDataset([source], Collator(tokenizer=tokenizer()))
    batch = dataset[PlannedSlice(0, 0, order, 25)]
    wanted = [expected(rows[row]) for row in order.tolist()]
    assert plain_values(batch.scores) == [score for row in wanted for score in row]
    assert plain_values(dataset[PlannedSlice(0, 0, order[:0], 25)].scores) == []
    assert source.num_without_scores() == sum(None in expected(row) for row in rows)


@pytest.mark.parametrize("way", ["jsonl", "tokens", "streamed"])
def test_chosen_documents_keep_their_scores(way: str, tmp_path: Path) -> None:
    rows = list_rows()
    source = WAYS[way](rows, tmp_path, max_negatives=2, negatives="sample", positives="sample")
    dataset = BatchDataset([source], Collator(tokenizer=tokenizer()), seed=3)
    chosen, drawn = np.arange(40), set()
    for epoch in range(3):
        batch = dataset[PlannedSlice(0, 0, chosen, 40, epoch=epoch)]
        assert batch.documents is not None
        drawn.add(tuple(batch.text_ids.tolist()))
        names = {
            row: {int(hash_texts([t])[0]): t for t in rows[row]["pos"] + rows[row]["neg"]}
            for row in chosen.tolist()
        }
        pairs = zip(batch.documents.owner.tolist(), batch.text_ids[40:].tolist(), strict=True)
        wanted = [score_of(row, names[row][text]) for row, text in pairs]
        assert plain_values(batch.scores) == wanted
    assert len(drawn) == 3


@pytest.mark.parametrize("kind", [list, pandas.DataFrame])
def test_rows_of_a_program_of_which_some_have_lists(kind: Any, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"query": "q", "positive": "a", "positive_score": 1},
        {"query": "r", "positive": ["b", "c"], "positive_score": [0.5, None]},
        {"query": "s", "positive": "d", "positive_score": np.float32(1.5)},
        {"query": "t", "positive": "e", "positive_score": np.nan},
    ]
    source = in_memory(kind)(rows, tmp_path)
    assert plain_values(source.scores()) == [1, 0.5, None, 1.5, None]
    assert source.read_as == "3 texts read as lists of one"


def test_a_folder_prepared_before_scores_were_kept_says_so(tmp_path: Path) -> None:
    prepared(LISTS, tmp_path)
    (tmp_path / "out" / "document_scores.npy").unlink()
    with pytest.raises(ConfigError, match="was prepared before scores were stored: delete it"):
        load(tmp_path / "out")


def test_streamed_files_of_which_some_have_lists(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"query": "a", "pos": "b", "neg": "c", "pos_score": 0.5, "neg_score": 2},
        {"query": "d", "pos": ["e", "f"], "neg": [], "pos_score": [1.5, None], "neg_score": []},
        {"query": "g", "pos": "h", "neg": None, "pos_score": None, "neg_score": None},
    ]
    for number, row in enumerate(rows):
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(row))
    source = load(tmp_path / "*.jsonl", streaming=True, cache_dir=str(tmp_path / "cache"))
    assert plain_values(source.scores()) == [0.5, 2, 1.5, None, None]
    assert source.num_without_scores() == 2


def test_rows_of_sources_with_and_without_scores_in_one_batch() -> None:
    scored = [Source.from_columns(n, {k: [row[k] for row in rows] for k in rows[0]})
              for n, rows in (("columns", COLUMNS), ("lists", LISTS))]  # fmt: skip
    for source, rows in zip(scored, (COLUMNS, LISTS)):
        bare = {name: [row[name] for row in rows] for name in rows[0] if "score" not in name}
        sources = [source, Source.from_columns("bare", bare)]
        check_mixable(sources, one_loss=True)
        numbers, chosen = np.array([1, 0, 0, 1]), np.array([3, 5, 0, 1])
        batch = BatchDataset(sources, Collator(tokenizer=tokenizer()))[
            PlannedSlice(0, -1, chosen, 4, numbers)
        ]
        wanted = [
            score if number == 0 else None
            for number, row in zip(numbers, chosen)
            for score in expected(rows[row])
        ]
        assert plain_values(batch.scores) == wanted


PAIR = {"query": ["a", "b"], "positive": ["c", "d"]}
NEEDS = "needs a score for each document, and source 'x'"
LACKING: dict[str, tuple[dict[str, Any], str]] = {
    "none": (PAIR, f"{NEEDS} has no positive_score: name it in .*columns.positive_score"),
    "of negatives": (
        {**PAIR, "negative": ["e", "f"], "pos_score": [1.0, 2.0]},
        f"{NEEDS} has no negative_score",
    ),
    "several columns": (
        {**PAIR, "negative_1": ["e", "f"], "negative_2": ["g", "h"], "neg_score": [1.0, 2.0]},
        "has 2 columns of negatives, of which none can have scores: keep all negatives in one column",
    ),
    "a null": ({**PAIR, "pos_score": [1.0, None]}, f"{NEEDS} lacks some in 1 of its 2 rows"),
    "a list's NaN": (
        {**PAIR, "neg": [["e"], ["f", "g"]], "pos_score": [1, 2], "neg_score": [None, [1.0, np.nan]]},
        "lacks some in 2 of its 2 rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", LACKING)
def test_a_loss_that_needs_scores_is_refused_without_them(data: str) -> None:
    columns, message = LACKING[data]
    source = Source.from_columns("x", columns)
    for loss in (MarginMSE(), Matryoshka(MarginMSE(), dims=[8])):
        with pytest.raises(ConfigError, match=message):
            check_loss(loss, source, guided=False)
    check_loss(MultipleNegativesRanking(), source, guided=False)


def test_lists_without_any_negative_need_no_scores_of_them() -> None:
    columns = {**PAIR, "neg": [[], None], "pos_score": [1.0, 2.0]}
    check_loss(MarginMSE(), Source.from_columns("x", columns), guided=False)


FAULTS: dict[str, tuple[Any, str]] = {
    "text": ("high", "a score that is no finite number in column 'positive_score', line 3"),
    "infinite": ("1e39", "a score that is no finite number in column 'positive_score', line 3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_scores_of_columns(fault: str, tmp_path: Path) -> None:
    value, message = FAULTS[fault]
    path = tmp_path / "a.csv"
    path.write_text(f"query,positive,positive_score\na,b,1\nc,d,{value}\ne,f,nan\ng,h,-.5\n")
    with pytest.raises(ConfigError, match=message):
        load(path)
    kept = load(path, on_bad_row="drop")
    assert plain_values(kept.scores()[0] if kept.scores() is not None else None) == [1, None, -0.5]
    with pytest.raises(ConfigError, match="another number of scores than of positives"):
        Source.from_columns("x", {**PAIR, "pos_score": [[1.0], [1.0, 2.0]]})
    truths = {**PAIR, "pos_score": [True, False]}
    with pytest.raises(ConfigError, match=r"'pos_score', which holds bool .* or set .*=null"):
        Source.from_columns("x", truths)
    without = Source.from_columns("x", truths, mapping={"positive_score": None})
    assert without.scores() is None


@pytest.mark.parametrize(("loss", "end"), [(MarginMSE(), ": used"), (None, "")])
def test_the_report_says_that_there_are_scores(loss: Any, end: str) -> None:
    source = Source.from_columns("x", {k: [row[k] for row in LISTS] for k in LISTS[0]})
    losses = None if loss is None else {"x": loss}
    [report] = build_report([source], losses=losses).sources
    number = sum(None in expected(row) for row in LISTS)
    line = f"scores of documents in pos_scores, neg_scores, some lacking in {number} rows"
    end = f"{end} by the loss" if end else ""
    assert f"{line}{end}" in count_lines(report)
