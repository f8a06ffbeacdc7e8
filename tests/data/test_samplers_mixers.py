"""How mixers share out steps among sources."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import pytest

from inbatch.data.plan.plan import GlobalBatch, Plan, SourceInfo
from inbatch.data.plan.samplers import (
    NoDuplicates,
    Proportional,
    RoundRobin,
    Shuffled,
    Temperature,
    Weighted,
)
from inbatch.data.plan.samplers.weighted import apportion
from inbatch.errors import ConfigError


def infos(**rows: int) -> list[SourceInfo]:
    """Sources without repeated texts."""
    starts = np.cumsum([0, *rows.values()]) * 2
    hashes = [
        np.arange(start, start + 2 * count, dtype=np.uint64).reshape(2, count)
        for start, count in zip(starts, rows.values())
    ]
    return [SourceInfo(name, rows[name], partial(np.asarray, h)) for name, h in zip(rows, hashes)]


def plan_of(sampler: Any, sources: list[SourceInfo], batch: int = 10, **overrides: Any) -> Plan:
    arguments = {"global_batch_size": batch, "seed": 0, "epoch": 0, "drop_last": True, **overrides}
    return sampler.plan(sources, **arguments)


def steps_of(plan: Plan) -> list[int]:
    return np.bincount([batch.source for batch in plan], minlength=len(plan.names)).tolist()


WITHIN = [Shuffled(), NoDuplicates()]


@pytest.mark.parametrize("within", WITHIN)
def test_round_robin_stops_at_the_first_exhausted(within: Any) -> None:
    plan = plan_of(RoundRobin(within), infos(a=105, b=40, c=70))
    assert [batch.source for batch in plan] == [0, 1, 2] * 4
    assert plan.skipped == {"a": 65, "b": 0, "c": 30}


@pytest.mark.parametrize("within", WITHIN)
def test_round_robin_cycles_until_the_largest_is_seen(within: Any) -> None:
    plan = plan_of(RoundRobin(within, stop="cycle_until_largest"), infos(a=100, b=40, c=70))
    assert [batch.source for batch in plan] == [0, 1, 2] * 10
    assert plan.skipped == {"a": 0, "b": 0, "c": 0}
    passes = [batch.rows for batch in plan if batch.source == 1]
    for start in (0, 4):
        rows = np.concatenate(passes[start : start + 4])
        np.testing.assert_array_equal(np.sort(rows), np.arange(40))
    assert not np.array_equal(passes[0], passes[4])  # every pass has its own order


@pytest.mark.parametrize("within", WITHIN)
def test_proportional_makes_all_batches_in_shuffled_order(within: Any) -> None:
    plan = plan_of(Proportional(within), infos(a=1000, b=300, c=95))
    assert steps_of(plan) == [100, 30, 9]
    schedule = [batch.source for batch in plan]
    assert schedule != sorted(schedule)
    assert abs(np.mean(np.flatnonzero(np.array(schedule) == 1)) / plan.num_steps - 0.5) < 0.2
    other = [
        batch.source for batch in plan_of(Proportional(within), infos(a=1000, b=300, c=95), epoch=1)
    ]
    assert schedule != other
    rows = np.concatenate([batch.rows for batch in plan if batch.source == 0])
    np.testing.assert_array_equal(np.sort(rows), np.arange(1000))


def test_short_last_batches_are_made_unless_dropped() -> None:
    plan = plan_of(Proportional(Shuffled()), infos(a=101, b=35), drop_last=False)
    assert steps_of(plan) == [11, 4]
    sizes = [sorted(len(b.rows) for b in plan if b.source == s) for s in (0, 1)]
    assert sizes == [[1] + [10] * 10, [5] + [10] * 3]
    assert plan.skipped == {"a": 0, "b": 0}


@pytest.mark.parametrize(
    ("temperature", "shares"), [(1.0, [81, 16, 3]), (2.0, [60, 27, 13]), (1e9, [34, 33, 33])]
)
def test_temperature_flattens_shares(temperature: float, shares: list[int]) -> None:
    sources = infos(a=810, b=160, c=30)
    plan = plan_of(Temperature(Shuffled(), temperature=temperature), sources)
    weights = np.array([810, 160, 30]) ** (1 / temperature)
    assert steps_of(plan) == apportion((weights / weights.sum()).tolist(), 100)
    assert np.abs(np.array(steps_of(plan)) - shares).max() <= 1


def test_weights_are_matched_by_name() -> None:
    sources = infos(a=500, b=500, c=500)
    sampler = Weighted({"c": 5, "a": 3, "b": 2}, NoDuplicates(), steps_per_epoch=20)
    plan = plan_of(sampler, sources)
    assert steps_of(plan) == [6, 4, 10]
    # Part of a source is used, another part in each epoch.
    rows = [
        {
            row
            for b in plan_of(sampler, sources, epoch=epoch)
            if b.source == 1
            for row in b.rows.tolist()
        }
        for epoch in (0, 1)
    ]
    assert len(rows[0]) == len(rows[1]) == 40
    assert len(rows[0] & rows[1]) < 20


def test_a_source_with_a_large_share_is_repeated() -> None:
    plan = plan_of(Weighted({"a": 1, "b": 1}, Shuffled()), infos(a=300, b=20))
    assert steps_of(plan) == [16, 16]
    rows = np.concatenate([batch.rows for batch in plan if batch.source == 1])
    assert np.bincount(rows).tolist() == [8] * 20


def test_batch_sizes_by_source() -> None:
    sampler = RoundRobin(Shuffled(), batch_sizes={"b": 4})
    plan = plan_of(sampler, infos(a=100, b=40))
    assert {(batch.source, len(batch.rows)) for batch in plan} == {(0, 10), (1, 4)}
    assert plan.num_steps == 20


def test_orders_of_equal_sources_differ() -> None:
    plan = plan_of(RoundRobin(Shuffled()), infos(a=1000, b=1000), batch=500)
    assert (plan.batch(0).rows == plan.batch(1).rows).mean() < 0.05


def test_another_source_does_not_change_the_order_within_a_source() -> None:
    alone = plan_of(Proportional(Shuffled()), infos(a=100))
    beside = plan_of(Proportional(Shuffled()), infos(a=100, b=50))
    rows = [batch.rows.tolist() for batch in beside if batch.source == 0]
    assert rows == [batch.rows.tolist() for batch in alone]


@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize(
    "make",
    [RoundRobin, Proportional, Temperature, lambda within, **kw: Weighted({"a": 2}, within, **kw)],
    ids=["round_robin", "proportional", "temperature", "weighted"],
)
def test_one_source_is_an_epoch_of_that_source(make: Any, within: Any) -> None:
    for mixed in (False, True):
        plan = plan_of(make(within, mixed=mixed), infos(a=95), drop_last=False)
        assert plan.num_steps == 10
        rows = np.concatenate([batch.rows for batch in plan])
        np.testing.assert_array_equal(np.sort(rows), np.arange(95))


@pytest.mark.parametrize("within", WITHIN)
def test_mixed_batches_shuffle_all_rows_together(within: Any) -> None:
    plan = plan_of(Proportional(within, mixed=True), infos(a=900, b=600), batch=100)
    pairs = [pair for batch in plan for pair in zip(_sources(batch).tolist(), batch.rows.tolist())]
    assert sorted(pairs) == [(0, row) for row in range(900)] + [(1, row) for row in range(600)]
    shares = [(_sources(batch) == 0).mean() for batch in plan]
    assert 0.4 < min(shares) < max(shares) < 0.8
    assert {batch.source for batch in plan} == {-1}
    assert plan.skipped == {"a": 0, "b": 0, "a+b": 0}


@pytest.mark.parametrize(
    ("sampler", "rows"),
    [
        (RoundRobin(Shuffled(), mixed=True), [100, 100]),
        (RoundRobin(Shuffled(), stop="cycle_until_largest", mixed=True), [250, 250]),
        (Weighted({"a": 1, "b": 4}, Shuffled(), mixed=True), [70, 280]),
        (Weighted({"a": 1, "b": 4}, Shuffled(), steps_per_epoch=10, mixed=True), [20, 80]),
        (Temperature(Shuffled(), temperature=1e9, mixed=True), [175, 175]),
    ],
)
def test_mixed_batches_hold_the_mixers_shares(sampler: Any, rows: list[int]) -> None:
    plan = plan_of(sampler, infos(a=250, b=100))
    for number, (count, size) in enumerate(zip(rows, (250, 100))):
        seen = np.concatenate([batch.rows[_sources(batch) == number] for batch in plan])
        assert len(seen) == count
        times = np.bincount(seen, minlength=size)
        assert set(times.tolist()) <= {count // size, -(-count // size)}


def test_mixed_batches_draw_other_rows_in_each_epoch() -> None:
    drawn = []
    for epoch in (0, 1):
        plan = plan_of(RoundRobin(Shuffled(), mixed=True), infos(a=1000, b=100), epoch=epoch)
        drawn.append({row for b in plan for row in b.rows[_sources(b) == 0].tolist()})
    assert len(drawn[0]) == 100
    assert len(drawn[0] & drawn[1]) < 40


def test_mixed_no_duplicates_covers_all_sources() -> None:
    generator = np.random.default_rng(0)
    hashes = [generator.integers(0, 400, (2, count), dtype=np.uint64) for count in (300, 200)]
    sources = [
        SourceInfo(name, h.shape[1], partial(np.asarray, h)) for name, h in zip("ab", hashes)
    ]
    plan = plan_of(Proportional(NoDuplicates(), mixed=True), sources)
    assert plan.num_steps >= 48
    for batch in plan:
        texts = [set(hashes[s][:, row].tolist()) for s, row in zip(_sources(batch), batch.rows)]
        assert sum(map(len, texts)) == len(set.union(*texts))


def _sources(batch: GlobalBatch) -> np.ndarray:
    assert batch.sources is not None
    return batch.sources


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(RoundRobin, Shuffled(), cast(Any, "never")), "stop='never' is not"),
        (lambda: RoundRobin(Shuffled(), batch_sizes={"z": 1}), "batch_sizes names 'z'"),
        (lambda: RoundRobin(Shuffled(), batch_sizes={"a": 0}), "batch_sizes.a=0 is below 1"),
        (
            lambda: RoundRobin(Shuffled(), batch_sizes={"a": 2}, mixed=True),
            "but sampler.mixed=true",
        ),
        (lambda: Weighted({"a": 0, "b": 1}, Shuffled()), "weights.a=0 is not above 0"),
        (lambda: Weighted({"a": 1}, Shuffled()), r"weights names \['a'\]"),
        (lambda: Weighted({"a": 1, "b": 1e-9}, Shuffled()), "source 'b' 0 of"),
        (
            lambda: Weighted({"a": 1, "b": 1}, Shuffled(), steps_per_epoch=0),
            "steps_per_epoch=0 is below 1",
        ),
        (lambda: Temperature(Shuffled(), temperature=0.0), "temperature=0.0 is not above 0"),
        (lambda: Shuffled(block_rows=0), "block_rows=0 is below 1"),
        (lambda: Proportional(NoDuplicates(), mixed=True), "equal numbers of text columns"),
    ],
)
def test_mistakes_name_field_and_value(make: Any, message: str) -> None:
    sources = infos(a=50, b=50)
    three = np.zeros((3, 50), dtype=np.uint64)
    if "equal numbers" in message:
        sources[1] = SourceInfo("b", 50, lambda: three)
    with pytest.raises(ConfigError, match=message):
        plan_of(make(), sources)
