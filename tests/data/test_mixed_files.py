"""Batches of several sources, some of them read file by file: shares, few files at a time, each row once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from inbatch.data.plan.plan import Plan, Sampler, SourceInfo, StreamInfo
from inbatch.data.plan.samplers import NoDuplicates, Proportional, RoundRobin, Shuffled, Weighted
from inbatch.data.plan.samplers.mixed_files import MixedFiles

BATCH = 16
LONG, SHORT, TABLE = (40, 70, 55, 61, 38, 90, 47, 52, 66, 41), (120, 75), 300


def infos(*, repeated: int = 0) -> list[SourceInfo]:
    """Two streamed sources and one at random access; every `repeated`-th row has one query."""
    found, start = [], 0
    for name, sizes in (("long", LONG), ("short", SHORT), ("table", (TABLE,))):
        num_rows = sum(sizes)
        hashes = np.arange(2 * start, 2 * (start + num_rows), dtype=np.uint64).reshape(2, -1)
        if repeated:
            hashes[0, ::repeated] = 10**9
        stream = None if name == "table" else StreamInfo(sizes, 2 if name == "long" else 1)
        found.append(SourceInfo(name, num_rows, lambda hashes=hashes: hashes, stream=stream))
        start += num_rows
    return found


def plan_of(sampler: Sampler, sources: list[SourceInfo], *, epoch: int = 0) -> Plan:
    return sampler.plan(sources, global_batch_size=BATCH, seed=0, epoch=epoch, drop_last=True)


def drawn(plan: Plan, source: int) -> np.ndarray:
    """Rows of a source in the order of the epoch."""
    return np.concatenate([b.rows[b.sources == source] for b in plan if b.sources is not None])


def files_of(sizes: tuple[int, ...], rows: np.ndarray) -> set[int]:
    return set(np.searchsorted(np.cumsum(sizes), rows, side="right").tolist())


@pytest.mark.parametrize("within", [Shuffled(), NoDuplicates()])
def test_each_row_once_and_sources_in_their_shares(within: Shuffled | NoDuplicates) -> None:
    sources = infos()
    plan = plan_of(Proportional(within, mixed=True), sources)
    rows = sum(source.num_rows for source in sources)
    assert plan.num_steps == rows // BATCH
    for number, source in enumerate(sources):
        got = drawn(plan, number)
        assert len(np.unique(got)) == len(got) >= source.num_rows - BATCH
        # Not only over the epoch: each half has its share as well.
        half = sum((b.sources == number).sum() for b in list(plan)[: plan.num_steps // 2])
        assert half / (plan.num_steps // 2 * BATCH) == pytest.approx(
            source.num_rows / rows, abs=0.05
        )
        if source.stream is None:  # in no order of the data
            assert np.abs(np.diff(got)).mean() > source.num_rows / 4
    again, other = plan_of(Proportional(within, mixed=True), sources), drawn(plan, 0)
    assert drawn(again, 0).tolist() == other.tolist()
    next_epoch = plan_of(Proportional(within, mixed=True), sources, epoch=1)
    assert drawn(next_epoch, 0).tolist() != other.tolist()


@pytest.mark.parametrize("within", [Shuffled(), NoDuplicates()])
def test_a_batch_reads_few_files(within: Shuffled | NoDuplicates) -> None:
    plan = plan_of(Proportional(within, mixed=True), infos(repeated=7))
    for number, sizes, buffer_files in ((0, LONG, 2), (1, SHORT, 1)):
        files = [files_of(sizes, b.rows[b.sources == number]) for b in plan]
        assert max(map(len, files)) <= 2 * buffer_files
        assert max(len(a | b) for a, b in pairwise(files)) <= 3 * buffer_files


def test_no_text_meets_across_sources() -> None:
    sources = infos(repeated=20)
    plan = plan_of(RoundRobin(NoDuplicates(), mixed=True), sources)
    hashes = [np.asarray(source.hashes()) for source in sources]  # type: ignore[misc]
    for batch in plan:
        assert batch.sources is not None
        texts = [hashes[s][:, row] for s, row in zip(batch.sources.tolist(), batch.rows.tolist())]
        assert len(np.unique(texts)) == 2 * BATCH
    placed = sum(len(drawn(plan, number)) for number in range(3))
    assert placed == plan.num_steps * BATCH
    assert placed + plan.skipped["long+short+table"] == 3 * sum(SHORT)


def test_several_passes_and_parts_of_one() -> None:
    sources = infos()
    plan = plan_of(
        Weighted(within=Shuffled(), weights={"long": 1, "short": 3, "table": 1}, mixed=True),
        sources,
    )
    times = [np.bincount(drawn(plan, n), minlength=s.num_rows) for n, s in enumerate(sources)]
    assert set(times[0]) == {0, 1}  # a part of the long one
    assert times[1].min() >= 3  # and passes over the short one
    assert times[1].max() - times[1].min() <= 2
    # The part is that of few files, not some rows of each.
    assert len(files_of(LONG, np.flatnonzero(times[0]))) < len(LONG)


def test_any_slice_of_the_order() -> None:
    order = MixedFiles(np.array([[0, 5, 5, 30], [30, 31, 77, 90]]), key=3)
    whole = order.slice(0, order.num_rows)
    assert sorted(whole.tolist()) == list(range(90))
    assert order.windows == [(0, 6), (6, 52), (52, 90)]
    for first, last in order.windows:
        cut = [order.slice(i, min(i + 7, last)) for i in range(first, last, 7)]
        assert np.concatenate(cut).tolist() == whole[first:last].tolist()
    assert sorted(order.slice(0, 6).tolist()) == [0, 1, 2, 3, 4, 30]
    assert order.slice(40, 60).tolist() == whole[40:60].tolist()
