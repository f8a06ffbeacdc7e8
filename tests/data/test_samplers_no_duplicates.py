"""No text twice in a global batch, on kind and on hostile data."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.data.plan.samplers import NoDuplicates
from inbatch.data.plan.samplers.assignment import assign_batches
from inbatch.data.plan.samplers.conflicts import find_conflicts
from inbatch.errors import ConfigError


def random_hashes(num_rows: int, columns: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 63, (columns, num_rows), dtype=np.uint64)


def unique(num_rows: int) -> np.ndarray:
    return random_hashes(num_rows)


def a_fifth_repeated(num_rows: int) -> np.ndarray:
    hashes = random_hashes(num_rows)
    generator = np.random.default_rng(1)
    for column in hashes:
        chosen = np.flatnonzero(generator.random(num_rows) < 0.2)
        column[chosen] = hashes[
            generator.integers(0, 2, len(chosen)), generator.integers(0, num_rows, len(chosen))
        ]
    return hashes


def popular_query(num_rows: int) -> np.ndarray:
    hashes = random_hashes(num_rows)
    hashes[0, np.random.default_rng(1).random(num_rows) < 0.25] = 7
    return hashes


def chain(num_rows: int) -> np.ndarray:
    """Each row's positive is the query of the next."""
    hashes = random_hashes(num_rows)
    hashes[1, :-1] = hashes[0, 1:]
    return hashes


def runs_of_five(num_rows: int) -> np.ndarray:
    hashes = random_hashes(num_rows)
    hashes[0] = np.arange(num_rows, dtype=np.uint64) // 5
    return hashes


def crossing_runs(num_rows: int) -> np.ndarray:
    """Every text of three columns occurs about eight times, in any column."""
    return np.random.default_rng(2).integers(0, 3 * num_rows // 8, (3, num_rows), dtype=np.uint64)


def same_text_in_both_columns(num_rows: int) -> np.ndarray:
    hashes = random_hashes(num_rows)
    hashes[1] = hashes[0]
    return hashes


def zipf(num_rows: int) -> np.ndarray:
    hashes = random_hashes(num_rows)
    hashes[0] = np.random.default_rng(3).zipf(1.5, num_rows).astype(np.uint64)
    return hashes


DATA = [
    unique,
    a_fifth_repeated,
    popular_query,
    chain,
    runs_of_five,
    crossing_runs,
    same_text_in_both_columns,
    zipf,
]


def plan_of(
    hashes: np.ndarray, batch: int = 32, keys: np.ndarray | None = None, **overrides: Any
) -> Plan:
    info = SourceInfo("a", hashes.shape[1], lambda: hashes, None if keys is None else lambda: keys)
    arguments = {"seed": 0, "epoch": 0, "drop_last": True, **overrides}
    return NoDuplicates(arguments.pop("block_rows", 1)).plan(
        [info], global_batch_size=batch, **arguments
    )


def check(plan: Plan, hashes: np.ndarray) -> None:
    """Every batch free of repeated texts, every row at most once, all counts right."""
    times = np.zeros(hashes.shape[1], dtype=np.int64)
    for batch in plan:
        times[batch.rows] += 1
        texts = [set(row) for row in hashes[:, batch.rows].T.tolist()]
        assert sum(map(len, texts)) == len(set.union(*texts))
    assert times.max() == 1
    assert plan.skipped == {"a": int((times == 0).sum())}


@pytest.mark.parametrize("make", DATA)
@pytest.mark.parametrize(("num_rows", "batch"), [(40, 32), (999, 32), (9000, 32), (9000, 500)])
@pytest.mark.parametrize("drop_last", [True, False])
def test_no_text_twice_and_full_batches(
    make: Any, num_rows: int, batch: int, drop_last: bool
) -> None:
    hashes = make(num_rows)
    try:
        plan = plan_of(hashes, batch, drop_last=drop_last)
    except ConfigError:
        assert drop_last  # not one full batch of distinct texts
        assert make in (popular_query, zipf, crossing_runs) or num_rows == 40
        return
    check(plan, hashes)
    sizes = [len(b.rows) for b in plan]
    num_full = sizes.count(batch)
    assert sizes[:num_full] == [batch] * num_full  # short ones at the end, fullest first
    assert sizes == sorted(sizes, reverse=True)
    if drop_last:
        assert num_full == plan.num_steps


@pytest.mark.parametrize(
    "make", [unique, a_fifth_repeated, chain, runs_of_five, same_text_in_both_columns]
)
@pytest.mark.parametrize("block_rows", [1, 8])
def test_no_batch_is_lost_where_texts_are_not_too_popular(make: Any, block_rows: int) -> None:
    hashes = make(20_000)
    plan = plan_of(hashes, 128, block_rows=block_rows)
    assert plan.num_steps == 20_000 // 128
    check(plan, hashes)
    assert plan_of(hashes, 128, drop_last=False).skipped == {"a": 0}


def test_number_of_steps_is_near_the_best_possible() -> None:
    """With repeats in one column S full batches exist iff the sum of min(count, S) is at least S * batch."""
    for make in (popular_query, zipf):
        hashes = make(30_000)
        counts = np.unique(hashes[0], return_counts=True)[1]
        best = max(s for s in range(1, 30_000 // 64) if np.minimum(counts, s).sum() >= 64 * s)
        steps = plan_of(hashes, 64).num_steps
        assert 0.85 * best <= steps <= best


def test_rows_that_wait_are_used_in_later_batches() -> None:
    """Windows of 64 batches of texts with 200 rows each lose a batch or two; the rows come back."""
    hashes = unique(128 * 256)
    hashes[0] = np.arange(128 * 256, dtype=np.uint64) // 200
    plan = plan_of(hashes, 128)
    assert plan.num_steps >= 254
    check(plan, hashes)


def test_short_batches_use_what_is_left() -> None:
    hashes = runs_of_five(3000)  # 600 distinct queries
    with pytest.raises(
        ConfigError, match="global_batch_size=1024 leaves no full batch of source 'a'"
    ):
        plan_of(hashes, 1024)
    plan = plan_of(hashes, 1024, drop_last=False)
    assert [len(batch.rows) for batch in plan] == [600] * 5
    check(plan, hashes)


@pytest.mark.parametrize("num_rows", [1, 2, 5])
def test_fewer_rows_than_a_batch(num_rows: int) -> None:
    plan = plan_of(unique(num_rows), 8, drop_last=False)
    assert [sorted(batch.rows.tolist()) for batch in plan] == [list(range(num_rows))]


def test_all_rows_equal() -> None:
    plan = plan_of(np.zeros((2, 100), dtype=np.uint64), 8, drop_last=False)
    assert [len(batch.rows) for batch in plan] == [1]
    assert plan.skipped == {"a": 99}


def test_rows_of_one_key_do_not_meet() -> None:
    keys = np.arange(4000, dtype=np.uint64) % 500
    plan = plan_of(unique(4000), 100, keys)
    assert plan.num_steps == 40
    assert all(len(np.unique(keys[batch.rows])) == 100 for batch in plan)


def test_a_key_is_no_text() -> None:
    hashes = unique(64)
    assert plan_of(hashes, 64, keys=np.roll(hashes[0], 1)).num_steps == 1


def test_hashes_are_needed() -> None:
    with pytest.raises(ConfigError, match="source 'a' has no text hashes"):
        NoDuplicates().plan(
            [SourceInfo("a", 100)], global_batch_size=8, seed=0, epoch=0, drop_last=True
        )


def test_epochs_leave_out_other_rows() -> None:
    hashes = popular_query(8000)
    placed = [
        set(np.concatenate([batch.rows for batch in plan_of(hashes, 64, epoch=epoch)]).tolist())
        for epoch in range(2)
    ]
    lost = [set(range(8000)) - rows for rows in placed]
    assert min(map(len, lost)) > 1500
    assert len(lost[0] & lost[1]) < 0.99 * len(lost[0])


def test_popular_text_costs_linear_time() -> None:
    def seconds(num_rows: int) -> float:
        hashes = popular_query(num_rows)
        best = float("inf")
        for _ in range(3):
            begin = time.process_time()
            for _batch in plan_of(hashes, 128):
                pass
            best = min(best, time.process_time() - begin)
        return best

    assert seconds(160_000) < 3 * 4 * seconds(40_000)


def test_easy_windows_are_solved_as_promised() -> None:
    """`is_easy` skips solving in advance: the solver must then fill every batch."""
    for seed in range(30):
        generator = np.random.default_rng(seed)
        num_batches, capacity = int(generator.integers(2, 65)), int(generator.integers(1, 30))
        size = num_batches * capacity
        values = generator.integers(0, max(2, size * seed // 3), (size, 2), dtype=np.uint64)
        conflicts = find_conflicts(values)
        batch_of_row = assign_batches(
            conflicts, num_batches=num_batches, capacity=capacity, key=seed
        )
        counts = np.bincount(batch_of_row + 1, minlength=num_batches + 1)
        assert set(counts[1:].tolist()) <= {0, capacity}
        if conflicts.is_easy(num_batches, capacity):
            assert counts[0] == 0


def test_some_windows_are_easy_and_some_are_not() -> None:
    a_part_of_the_data = a_fifth_repeated(64_000)[:, ::10].T
    assert find_conflicts(a_part_of_the_data).is_easy(64, 100)
    assert not find_conflicts(chain(6400).T).is_easy(64, 100)


def test_conflicts_are_found_across_columns() -> None:
    values = np.array([[1, 2], [3, 3], [4, 1], [5, 6], [7, 7], [8, 7]], dtype=np.uint64)
    conflicts = find_conflicts(values)
    assert conflicts.rows_T.tolist() == [0, 2, 4, 5]
    groups = conflicts.groups_TV
    assert groups[0, 0] == groups[1, 1] != groups[2, 0] == groups[3, 1]
    assert conflicts.sizes_G.tolist() == [2, 2, 1]
