"""Counts on a part of the texts are near those on all of them, and exact for each text of the part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inbatch.data.hashing import hash_texts
from inbatch.data.report import subsample as subsampling
from inbatch.data.report.build import build_report
from inbatch.data.report.subsample import subsample
from inbatch.data.report.text import to_markdown
from inbatch.data.sources.load import Source


def test_all_rows_of_a_text_are_in_the_part_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subsampling, "_BLOCK_ROWS", 100)
    hashes = hash_texts([f"text {i % 300}" for i in range(2000)])
    rows, values = subsample(hashes.__getitem__, 2000, keep_one_in=4)
    assert rows.tolist() == np.flatnonzero(hashes % np.uint64(4) == 0).tolist()
    assert values.tolist() == hashes[rows].tolist()
    assert subsample(hashes.__getitem__, 2000, keep_one_in=1)[0].tolist() == list(range(2000))


def test_a_report_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, positives = rng.integers(0, 9000, 30_000), rng.integers(0, 20_000, 30_000)
    positives[20_000:], queries[20_000:] = positives[:10_000], queries[:10_000]
    columns: dict[str, Any] = {
        "query": [f"q{i}" for i in queries],
        "positive": [f"p{i}" for i in positives],
        "sku": queries // 3,
    }
    source = Source.from_columns("x", columns, mapping={"key": "sku"})
    whole = build_report([source]).sources[0]
    monkeypatch.setattr(subsampling, "COUNTED_ROWS", 6000)
    report = build_report([source])
    part = report.sources[0]
    assert (whole.counted_one_in, part.counted_one_in) == (1, 5)
    assert "- estimates from one text in 5" in to_markdown(report)
    assert whole.num_duplicate_rows >= 10_000
    for value in (
        lambda r: r.num_duplicate_rows,
        lambda r: r.columns[0].num_distinct,
        lambda r: r.columns[1].num_distinct,
        lambda r: r.shared_queries.num_rows,
        lambda r: r.shared_queries.text_share,
        lambda r: r.shared_positives.num_texts,
        lambda r: r.key.num_distinct,
        lambda r: r.key.num_sharing_rows,
    ):
        assert value(part) == pytest.approx(value(whole), rel=0.06)
        assert value(part) != 0
