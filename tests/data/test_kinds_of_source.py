"""What holds for a source of any kind: in memory, from files, prepared, streamed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inbatch.data.plan.samplers import NoDuplicates, Shuffled
from inbatch.data.report.build import build_report
from inbatch.data.sources.load import Source, load_sources
from inbatch.data.sources.shards import ShardJob, finish_job, open_job, write_shards
from inbatch.errors import ConfigError
from inbatch.run.compatibility import check_stored_guide
from inbatch.run.datamodule import source_info
from inbatch.run.label_checks import label_range


def write_files(folder: Path, *, empty: tuple[int, ...] = ()) -> str:
    """Five files of 12 labelled pairs; those of `empty` hold only pairs with an empty text."""
    folder.mkdir()
    for part in range(5):
        rows = [
            {
                "query": "" if part in empty else f"query {part} {i}",
                "positive": f"text {part} {i}",
                "score": (12 * part + i) / 10 - 1,
            }
            for i in range(12)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{part}.jsonl").write_text(text)
    return f"{folder}/*.jsonl"


def load(path: str, cache: Path, **keys: Any) -> Source:
    [source] = load_sources({"x": {"path": path, **keys}}, cache_dir=str(cache))
    return source


def stream(path: str, cache: Path, **keys: Any) -> Source:
    return load(path, cache, streaming=True, buffer_files=2, **keys)


def prepare(source: Source, folder: Path) -> str:
    job = ShardJob(source=source, folder=folder / "x", shard_rows=16)
    for _ in write_shards(job, open_job(job), workers=1):
        pass
    finish_job(job, versions={})
    return str(folder / "x")


def test_the_range_of_labels(tmp_path: Path) -> None:
    path = write_files(tmp_path / "data")
    table = load(path, tmp_path / "cache")
    columns = {"left": ["a", "b"], "right": ["c", "d"], "label": [False, True]}
    assert label_range(Source.from_columns("x", columns)) == (0.0, 1.0)
    for source in (
        table,
        stream(path, tmp_path / "streams"),
        load(prepare(table, tmp_path / "out"), tmp_path / "cache"),
    ):
        assert label_range(source) == pytest.approx((-1.0, 4.9))
    # Labels of rows that are left out do not count.
    part = write_files(tmp_path / "part", empty=(0, 4))
    for source in (
        load(part, tmp_path / "cache", on_empty="drop"),
        stream(part, tmp_path / "streams", on_empty="drop"),
    ):
        assert label_range(source) == pytest.approx((0.2, 3.7))


@pytest.mark.parametrize("empty", [(0,), (1, 2), (0, 1, 4)])
def test_streamed_files_that_lose_all_their_rows(empty: tuple[int, ...], tmp_path: Path) -> None:
    path = write_files(tmp_path / "data", empty=empty)
    streamed = stream(path, tmp_path / "streams", on_empty="drop")
    table = load(path, tmp_path / "cache", on_empty="drop")
    count = 60 - 12 * len(empty)
    assert streamed.num_rows == table.num_rows == count
    assert streamed.num_dropped == table.num_dropped == 60 - count
    rows = np.random.default_rng(0).permutation(count)
    assert streamed.read(rows)[0] == table.read(rows)[0]
    assert streamed.text_hashes().tolist() == table.text_hashes().tolist()
    for sampler in (NoDuplicates(), Shuffled()):
        plan = sampler.plan(
            [source_info(streamed)], global_batch_size=8, seed=0, epoch=0, drop_last=False
        )
        assert sorted(np.concatenate([batch.rows for batch in plan]).tolist()) == [*range(count)]
    [report] = build_report([streamed]).sources
    assert report.intake.read - report.intake.used == 60 - count


@pytest.mark.parametrize("streaming", [False, True])
def test_files_that_all_lose_their_rows(streaming: bool, tmp_path: Path) -> None:
    path = write_files(tmp_path / "data", empty=(0, 1, 2, 3, 4))
    make = stream if streaming else load
    with pytest.raises(
        ConfigError, match=r"holds no rows but those left out: 60 with an empty text in"
    ):
        make(path, tmp_path / "cache", on_empty="drop")


def test_a_stored_guide_needs_rows_at_random_access(tmp_path: Path) -> None:
    path = write_files(tmp_path / "data")
    check_stored_guide(load(path, tmp_path / "cache"))
    with pytest.raises(
        ConfigError, match=r"source 'x' .*data\.train\.x\.streaming.*guide\.mode=live"
    ):
        check_stored_guide(stream(path, tmp_path / "streams"))


def test_several_workers_make_the_same_copy(tmp_path: Path) -> None:
    path = write_files(tmp_path / "data")
    found = []
    for workers in (1, 3):
        cache = tmp_path / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        [source] = load_sources({"x": path}, cache_dir=str(cache), workers=workers)
        texts, labels = source.read(np.arange(60))
        found.append((source.fingerprint, texts, labels.tolist() if labels is not None else None))
        assert len(list(cache.rglob("arrow_copy-train*.arrow"))) == workers
    assert found[0] == found[1]


def test_a_prepared_folder_by_its_url(tmp_path: Path) -> None:
    table = load(write_files(tmp_path / "data"), tmp_path / "cache")
    source = load(f"file://{prepare(table, tmp_path / 'out')}", tmp_path / "cache")
    assert source.num_rows == 60
    assert source.text_hashes().tolist() == table.text_hashes().tolist()
