"""Sources read file by file: the same rows, plans without duplicates, few files at a time, exact resume."""

from __future__ import annotations

import gzip
import json
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pytest

from helpers.tiny import tiny_texts
from inbatch.data.plan.permutation import FilesRange
from inbatch.data.plan.plan import Plan, Sampler, SourceInfo, StreamInfo
from inbatch.data.plan.samplers import NoDuplicates, Proportional, RoundRobin, Shuffled
from inbatch.data.report.build import build_report
from inbatch.data.sources.load import Source, load_sources
from inbatch.data.sources.streamed import StreamedRows
from inbatch.errors import ConfigError
from inbatch.run.datamodule import source_info

SIZES = (30, 7, 50, 21, 40, 33, 3, 60)


def write_files(folder: Path, *, start: int = 0) -> str:
    """Gzipped files of unequal sizes; a fifth of the queries has another row's text."""
    folder.mkdir(exist_ok=True)
    texts, number = tiny_texts(4 * sum(SIZES), seed=start), start
    for place, size in enumerate(SIZES):
        lines = []
        for _ in range(size):
            query = texts[number % 40] if number % 5 == 0 else f"{texts[number]} {number}"
            row = {
                "query": query,
                "positive": f"is {number}",
                "score": number / 9,
                "sku": number // 2,
            }
            lines.append(json.dumps(row) + "\n")
            number += 1
        with gzip.open(folder / f"part-{place}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(lines)
    return f"{folder}/part-*.jsonl.gz"


def load(
    path: str, cache: Path, *, streaming: bool = True, name: str = "x", **options: Any
) -> Source:
    spec = {"path": path, "columns": {"key": "sku"}, "streaming": streaming, **options}
    if streaming:
        spec = {"buffer_files": 2, **spec}
    [source] = load_sources({name: spec}, cache_dir=str(cache))
    return source


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Source, Source]:
    """The same rows, streamed and in one table."""
    path = write_files(tmp_path / "data")
    return load(path, tmp_path / "streams"), load(path, tmp_path / "tables", streaming=False)


def plan_of(sampler: Sampler, sources: list[Source], **options: Any) -> Plan:
    infos = [source_info(source) for source in sources]
    return sampler.plan(
        infos, **{"global_batch_size": 8, "seed": 0, "epoch": 0, "drop_last": True, **options}
    )


def test_the_rows_are_those_of_a_table(pair: tuple[Source, Source]) -> None:
    streamed, table = pair
    assert streamed.num_rows == table.num_rows == sum(SIZES)
    rows = np.random.default_rng(0).permutation(sum(SIZES))
    for source in (streamed, pickle.loads(pickle.dumps(streamed))):
        assert source.read(rows)[0] == table.read(rows)[0]
        for one, two in (
            (source.read(rows)[1], table.read(rows)[1]),
            (source.keys(), table.keys()),
            (source.text_hashes(), table.text_hashes()),
            (source.text_lengths(), table.text_lengths()),
        ):
            assert one is not None
            assert two is not None
            assert one.tolist() == two.tolist()
    assert isinstance(streamed.text_hashes(), np.memmap)


def test_remote_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    write_files(tmp_path / "data")
    memory = fsspec.filesystem("memory")
    for file in (tmp_path / "data").iterdir():
        memory.pipe(f"/stream/{file.name}", file.read_bytes())
    source = load("memory://stream/part-*.jsonl.gz", tmp_path / "streams")
    assert source.num_rows == sum(SIZES)
    assert source.read(np.array([30]))[0][1] == ["is 30"]


@pytest.mark.parametrize("sampler", [NoDuplicates(), Proportional(NoDuplicates())])
@pytest.mark.parametrize("drop_last", [True, False])
def test_no_text_or_key_meets_and_no_row_comes_twice(
    pair: tuple[Source, Source], sampler: Sampler, drop_last: bool
) -> None:
    source, _ = pair
    plan = plan_of(sampler, [source], drop_last=drop_last)
    keys, hashes = source.keys(), source.text_hashes()
    assert keys is not None
    rows = [batch.rows for batch in plan]
    for batch in rows:
        assert len(np.unique(keys[batch])) == len(batch)
        assert len(np.unique(hashes[:, batch])) == 2 * len(batch)
    drawn = np.concatenate(rows)
    assert len(np.unique(drawn)) == len(drawn)
    assert len(drawn) + plan.skipped["x"] == sum(SIZES)
    assert len(drawn) >= 0.9 * sum(SIZES)
    again = [batch.rows.tolist() for batch in plan_of(sampler, [source], drop_last=drop_last)]
    assert again == [batch.tolist() for batch in rows]
    other = [batch.rows.tolist() for batch in plan_of(sampler, [source], epoch=1)]
    assert other != again


def files_of(rows: np.ndarray) -> set[int]:
    return set((np.searchsorted(np.cumsum(SIZES), rows, side="right")).tolist())


@pytest.mark.parametrize("sampler", [NoDuplicates(), Shuffled()])
def test_a_batch_reads_few_files(tmp_path: Path, sampler: Sampler) -> None:
    path = write_files(tmp_path / "data")
    # Without a key, which the plain sampler does not take.
    spec = {"x": {"path": path, "streaming": True, "buffer_files": 2}}
    [source] = load_sources(spec, cache_dir=str(tmp_path / "streams"))
    batches = [files_of(batch.rows) for batch in plan_of(sampler, [source])]
    assert max(map(len, batches)) <= 4
    assert max(len(a | b) for a, b in pairwise(batches)) <= 6
    assert np.mean([len(files) for files in batches]) > 1.5


def test_rows_that_wait_do_so_for_one_window_of_files() -> None:
    sizes, num_rows = (40,) * 12, 480
    hashes = np.arange(2 * num_rows, dtype=np.uint64).reshape(2, num_rows)
    hashes[0, ::2] = 7  # half of the rows have one query, so that most of these find no place
    info = SourceInfo("x", num_rows, lambda: hashes, stream=StreamInfo(sizes, 2))
    plan = NoDuplicates().plan([info], global_batch_size=8, seed=0, epoch=0, drop_last=True)
    stream = plan.streams[0]
    order = stream._passes[0]._solve.__self__._order  # type: ignore[attr-defined]
    window_of = np.empty(num_rows, dtype=np.int64)
    for number, (first, last) in enumerate(order.windows):
        window_of[order.slice(first, last)] = number
    spans = [int(np.ptp(window_of[batch.rows])) for batch in plan]
    assert set(spans) == {0, 1}
    assert plan.num_steps >= 28


def test_several_sources_in_turn(tmp_path: Path) -> None:
    path = write_files(tmp_path / "data")
    streamed = load(path, tmp_path / "streams", name="streamed")
    table = load(path, tmp_path / "tables", streaming=False, name="table")
    plan = plan_of(RoundRobin(NoDuplicates()), [streamed, table])
    assert [batch.source for batch in plan][:4] == [0, 1, 0, 1]


def count_decoded(source: Source) -> list[str]:
    """Notes each file that is fetched from here on."""
    decoded: list[str] = []
    rows = source.streamed
    assert rows is not None
    decode = rows._decode

    def counting(files: Any, folder: str) -> Any:
        decoded.extend(files.paths)
        return decode(files, folder)

    rows._decode = counting
    return decoded


def test_resuming_fetches_one_window_and_space_is_bounded(tmp_path: Path) -> None:
    path, cache = write_files(tmp_path / "data"), tmp_path / "streams"
    source = load(path, cache)
    plan = plan_of(NoDuplicates(), [source])
    decoded = count_decoded(source)
    whole = [source.read(batch.rows)[0] for batch in plan]
    assert len(decoded) <= 2 * len(SIZES)
    assert len(list(cache.glob("stream-*/rows-*.arrow"))) == 4
    assert len(set(decoded)) == len(SIZES)
    for step in (plan.num_steps - 2, plan.num_steps // 2):
        for copy in cache.glob("stream-*/rows-*"):
            copy.unlink()
        again = load(path, cache)
        fetched = count_decoded(again)
        batch = plan_of(NoDuplicates(), [again]).batch(step)
        assert again.read(batch.rows)[0] == whole[step]
        assert 0 < len(fetched) <= 4  # the index is there: two windows of two files at most
        assert len(list(cache.glob("stream-*/rows-*.arrow"))) <= 4
    assert list(cache.glob("stream-*/.*")) == []


def test_copies_are_shared(tmp_path: Path) -> None:
    path, cache = write_files(tmp_path / "data"), tmp_path / "streams"
    first, second = load(path, cache), load(path, cache)
    decoded = count_decoded(second)
    rows = np.arange(SIZES[0])
    assert first.read(rows) is not None
    assert second.read(rows)[0][1] == [f"is {i}" for i in range(SIZES[0])]
    assert decoded == []


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path, cache = write_files(tmp_path / "data"), tmp_path / "streams"
    source = load(path, cache)
    write_files(tmp_path / "data", start=500)
    with pytest.raises(ConfigError, match=r"part-0\.jsonl\.gz' has changed since it was indexed"):
        source.read(np.array([0]))
    assert load(path, cache).read(np.array([0]))[0][1] == ["is 500"]


def test_the_report_looks_at_few_files(pair: tuple[Source, Source]) -> None:
    streamed, _ = pair
    decoded = count_decoded(streamed)
    report = build_report([streamed])
    assert len(decoded) <= 2
    assert report.sources[0].num_rows == sum(SIZES)


def test_an_order_of_files_is_a_permutation_that_mixes() -> None:
    sizes = tuple(np.random.default_rng(0).integers(50, 150, 64).tolist())
    order = FilesRange(sizes, key=1, buffer_files=8)
    rows = order.slice(0, order.num_rows)
    assert sorted(rows.tolist()) == list(range(sum(sizes)))
    pieces = [order.slice(i, min(i + 77, len(rows))) for i in range(0, len(rows), 77)]
    assert np.concatenate(pieces).tolist() == rows.tolist()
    distance = np.abs(np.diff(rows)).mean() / len(rows)
    assert distance == pytest.approx(1 / 3, abs=0.06)  # windows are few here, hence the spread
    # Neighbours in a file do not stay neighbours.
    assert (np.abs(np.diff(rows)) == 1).mean() < 0.01


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"limit": 5}, "reads whole files, not a limit"),
        ({"buffer_files": 0}, "buffer_files=0 is not a whole number"),
        ({"streaming": "yes"}, "streaming='yes' is not true or false"),
        ({"streaming": False, "buffer_files": 3}, "has an effect only with"),
    ],
)
def test_mistakes(tmp_path: Path, options: dict[str, Any], word: str) -> None:
    path = write_files(tmp_path / "data")
    with pytest.raises(ConfigError, match=word):
        load(path, tmp_path, **options)
    with pytest.raises(ConfigError, match=r"name one in data\.cache_dir"):
        load_sources({"x": {"path": path, "streaming": True}})


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = write_files(tmp_path / "data")
    with gzip.open(tmp_path / "data" / "part-9.jsonl.gz", "wt") as file:
        for positive in ('"p"', "null"):
            file.write(f'{{"query": "q", "positive": {positive}, "score": 1, "sku": 1}}\n')
    with pytest.raises(
        ConfigError, match=r"part-9\.jsonl\.gz' has an empty \(null\) text .* line 2"
    ):
        assert load(path, tmp_path).num_rows


def test_plans_know_how_a_source_is_read(pair: tuple[Source, Source]) -> None:
    infos = [source_info(source) for source in pair]
    assert infos[0].stream == StreamInfo(SIZES, 2)
    assert infos[1].stream is None
    assert isinstance(pair[0].streamed, StreamedRows)
