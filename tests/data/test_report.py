"""Counts against brute force, warnings where they belong, and files that read back."""

from __future__ import annotations

import json
from collections import defaultdict
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from helpers.tiny import tiny_tokenizer
from inbatch.data.hashing import hash_rows, hash_texts
from inbatch.data.report.build import build_report, write
from inbatch.data.report.column_counts import shared
from inbatch.data.report.text import to_markdown, to_table
from inbatch.data.report.values import DataReport
from inbatch.data.sources.load import Source, load_sources
from inbatch.encoder.tokenize import TextTokenizer


def report_of(columns: dict[str, list[Any]], **options: Any) -> DataReport:
    return build_report([Source.from_columns("mine", columns)], **options)


CLEAN = {"query": ["a", "b", "c"], "pos": ["d", "e", "f"], "neg": ["g", "h", "i"]}


def test_clean_data_has_no_warnings() -> None:
    assert report_of(CLEAN).warnings == ()


def test_shared_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 40, size=(2, 120)).astype(np.uint64)
    others: dict[int, set[int]] = defaultdict(set)
    for a, b in zip(left.tolist(), right.tolist()):
        others[a].add(b)
    result = shared(left, right)
    assert result.num_rows == sum(len(others[a]) > 1 for a in left.tolist())
    assert result.num_texts == sum(len(group) > 1 for group in others.values())
    assert result.row_share == result.num_rows / 120
    assert result.text_share == result.num_texts / len(others)
    assert shared(left, left).num_rows == 0


def test_row_hashes_know_the_order_of_columns() -> None:
    a, b = hash_texts(["x", "y"]), hash_texts(["y", "x"])
    rows = hash_rows(np.stack([a, b]))
    assert rows[0] != rows[1]
    assert rows.tolist() == hash_rows(np.stack([a, b])).tolist()
    assert len(set(hash_rows(np.stack([a, a])).tolist())) == 2


def test_counts_of_rows_and_columns() -> None:
    report = report_of(
        {
            "query": ["a", "a", "a", "b", "c", "d"],
            "pos": ["p", "q", "p", "b", "e", "dd"],
            "neg": ["n", "n", "n", "m", "m", "dd"],
        }
    )
    [source] = report.sources
    assert source.num_duplicate_rows == 1
    assert source.num_positive_is_query == 1
    assert source.num_negative_is_own == 1
    assert source.shared_queries is not None
    assert (source.shared_queries.num_rows, source.shared_queries.num_texts) == (3, 1)
    assert source.shared_queries.text_share == pytest.approx(1 / 4)
    query, positive, _ = source.columns
    assert (query.num_distinct, positive.num_distinct) == (4, 5)
    lengths = positive.characters
    assert (lengths.min, lengths.max) == (1, 2)
    text = " ".join(report.warnings)
    for word in ("25% of the queries", "no_duplicates", "repeat an earlier row"):
        assert word in text
    for word in ("positive equal to the query", "negative equal to their query"):
        assert word in text


def test_tokens_are_counted_before_truncation_with_the_prompt() -> None:
    tokenizer = TextTokenizer(hf=tiny_tokenizer(), max_length=6)
    texts = ["red", "red green blue black", "red green blue black white"]
    columns = {"query": texts, "pos": ["case", "phone", "cable"]}
    report = report_of(columns, tokenizer=tokenizer, prompts={"document": "small large "})
    query, positive = report.sources[0].columns
    assert query.tokens is not None
    assert (query.tokens.min, query.tokens.p50, query.tokens.max) == (3, 6, 7)
    assert query.truncated_share == pytest.approx(1 / 3)
    assert positive.tokens is not None
    assert (positive.tokens.min, positive.tokens.max, positive.truncated_share) == (5, 5, 0)
    assert report.warnings == (
        "33% of the texts in column 'query' of source 'mine' are longer than max_length=6 tokens "
        "and are cut.",
    )
    assert len(tokenizer(texts)[0][2]) == 6, "the report must leave the tokenizer as it was"


def test_labels_and_shares_of_batches() -> None:
    columns = {"left": ["a", "a", "c"], "right": ["d", "e", "c"], "label": [1, 0, 1]}
    report = report_of(columns, duplicate_share=lambda source: 0.25 * source.num_rows)
    [source] = report.sources
    assert source.label is not None
    assert [(b.low, b.high, b.count) for b in source.label.bins] == [(0, 0, 1), (1, 1, 2)]
    assert source.label.mean == pytest.approx(2 / 3)
    assert source.shared_queries is None, "labels say which pairs are positive"
    assert source.batches_with_duplicates == 0.75
    assert len(report.warnings) == 1
    assert "75% of the global batches" in report.warnings[0]
    spread = report_of({"left": ["x"] * 50, "right": ["y"] * 50, "score": list(range(50))})
    assert spread.sources[0].label is not None
    assert [b.count for b in spread.sources[0].label.bins] == [5] * 10
    assert any("all labels" in w for w in report_of({**columns, "label": [1, 1, 1]}).warnings)


def test_written_files(tmp_path: Path) -> None:
    columns = {"query": ["a | b\nc", "é"], "pos": ["x" * 500, "y"], "label": [0.5, 1]}
    report = report_of(columns)
    write(report, tmp_path / "run" / "data_report.md")
    stored = json.loads((tmp_path / "run" / "data_report.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(report.to_dict()))
    assert stored["sources"][0]["samples"][1] == {"query": "é", "pos": "y", "label": 1.0}
    page = (tmp_path / "run" / "data_report.md").read_text(encoding="utf-8")
    assert "a \\| b c" in page
    widths = {line.count(" | ") for line in page.splitlines() if line.startswith("| ")}
    assert widths == {5, 1, 2}  # columns, label bins, samples
    assert "x" * 300 not in page
    console = Console(record=True, width=120, file=StringIO())
    console.print(to_table(report))
    assert "mine" in console.export_text()


def test_rows_that_no_batch_holds_are_reported() -> None:
    columns = {"query": [f"q{i}" for i in range(4000)], "pos": [f"p{i}" for i in range(4000)]}
    few, many = report_of(columns, skipped={"mine": 4}), report_of(columns, skipped={"mine": 5})
    assert few.warnings == ()
    assert "rows skipped in the first epoch: 4" in to_markdown(few)
    [line] = many.warnings
    assert line.startswith("5 rows of source 'mine' (0.1%) are skipped in the first epoch")
    assert "skipped" not in to_markdown(report_of(columns))
    [line] = report_of(columns, skipped={"mine": 0, "mine+other": 40}).warnings
    assert line.startswith("40 rows of sources 'mine+other' (1.0%)")


@pytest.mark.parametrize(
    ("texts", "warned"),
    [
        (["0", "-1.5", " 7", "2e3"], True),
        (["0", "1", "red 2"], False),
        (["nan", "inf"], False),
    ],
)
def test_texts_that_are_all_numbers_are_pointed_at(texts: list[str], warned: bool) -> None:
    report = report_of({"query": [f"offer {i} of" for i in range(len(texts))], "pos": texts})
    lines = [line for line in report.warnings if "are numbers" in line]
    assert len(lines) == warned
    assert all("column 'pos' of source 'mine'" in line for line in lines)


def test_real_data(real_data: Path, tmp_path: Path) -> None:
    spec = {
        "offers": str(real_data / "wdc_lspc/*/triplets_train.parquet"),
        "terms": str(real_data / "cpv/pairs_train.parquet"),
        "sts": str(real_data / "korsts/train.parquet"),
    }
    sources = load_sources(spec, cache_dir=str(tmp_path))
    report = build_report(sources)
    offers, terms, sts = report.sources
    (query, positive, _), _ = sources[0].read(np.arange(sources[0].num_rows))
    by_query: dict[str, set[str]] = defaultdict(set)
    for q, p in zip(query, positive):
        by_query[q].add(p)
    assert offers.shared_queries is not None
    assert offers.shared_queries.num_rows == sum(len(by_query[q]) > 1 for q in query)
    assert offers.columns[0].num_distinct == len(by_query)
    assert offers.num_duplicate_rows == len(query) - len(
        set(zip(*sources[0].read(np.arange(len(query)))[0]))
    )
    assert terms.ignored_columns == ("lang", "code")
    assert sts.label is not None
    assert (sts.label.min, sts.label.max) == (0.0, 1.0)
