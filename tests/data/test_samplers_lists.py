"""Plans over rows with lists: no query or positive in two rows of a batch, against brute force on sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inbatch.data.plan.fingerprint import check_same_plan, plan_fingerprint
from inbatch.data.plan.permutation import keyed_hash
from inbatch.data.plan.plan import Plan, Sampler, SourceInfo, StreamInfo, duplicate_share
from inbatch.data.plan.samplers import (
    NoDuplicates,
    Proportional,
    RoundRobin,
    Shuffled,
    Temperature,
    Weighted,
)
from inbatch.data.plan.samplers import conflicts as conflicts_module
from inbatch.data.plan.samplers.assignment import assign_batches
from inbatch.data.plan.samplers.conflicts import find_conflicts
from inbatch.data.plan.samplers.lists import merge, take_lists
from inbatch.data.plan.samplers.no_duplicates import window_rows_of
from inbatch.data.ragged import RaggedValues
from inbatch.errors import ConfigError


def lists_of(num_rows: int, *, most: int = 5, texts: int = 1 << 40, seed: int = 0) -> RaggedValues:
    """A query and 1 to `most` positives a row; few `texts` make many of them equal."""
    generator = np.random.default_rng(seed)
    lengths = 1 + generator.integers(1, most + 1, num_rows)
    values = keyed_hash(generator.integers(0, texts, lengths.sum(), dtype=np.uint64), key=5)
    return RaggedValues(values, np.append(0, np.cumsum(lengths)))


def sets_of(lists: RaggedValues) -> list[set[int]]:
    return [set(row.tolist()) for row in np.split(lists.values, lists.offsets[1:-1])]


def info_of(lists: RaggedValues, name: str = "a", **others: Any) -> SourceInfo:
    return SourceInfo(name, lists.num_rows, conflicts=lambda: lists, **others)


def plan_of(sampler: Sampler, sources: Sequence[SourceInfo], **overrides: Any) -> Plan:
    arguments = {"global_batch_size": 32, "seed": 0, "epoch": 0, "drop_last": True, **overrides}
    return sampler.plan(sources, **arguments)


def disjoint(sets: list[set[int]]) -> bool:
    return sum(map(len, sets)) == len(set().union(*sets))


def check(plan: Plan, lists: RaggedValues, keys: np.ndarray | None = None) -> None:
    """Every batch free of repeated texts, every row at most once, all counts right."""
    sets = sets_of(lists)
    times = np.zeros(len(sets), dtype=np.int64)
    for batch in plan:
        times[batch.rows] += 1
        assert disjoint([sets[row] for row in batch.rows])
        assert keys is None or len(np.unique(keys[batch.rows])) == len(batch.rows)
    assert times.max() == 1
    assert plan.skipped == {"a": int((times == 0).sum())}


@pytest.mark.parametrize("seed", range(60))
def test_conflicts_and_batches_against_sets(seed: int) -> None:
    generator = np.random.default_rng(seed)
    num_rows = int(generator.integers(1, 40))
    lists = lists_of(num_rows, texts=60, seed=seed)
    sets = sets_of(lists)
    conflicts = find_conflicts(lists)
    tied = [
        any(sets[row] & sets[other] for other in range(num_rows) if other != row)
        for row in range(num_rows)
    ]
    assert conflicts.rows_T.tolist() == np.flatnonzero(tied).tolist()
    assert conflicts.sizes_G.dtype == np.int64
    held = [len([s for s in sets if value in s]) for value in set().union(*sets)]
    assert sorted(conflicts.sizes_G[:-1]) == sorted(count for count in held if count > 1)
    for row, groups in zip(conflicts.rows_T, conflicts.groups_TV):
        real = groups[groups < len(conflicts.sizes_G) - 1].tolist()
        assert (
            len(real)
            == len(set(real))
            == sum(
                any(value in sets[other] for other in range(num_rows) if other != row)
                for value in sets[row]
            )
        )
    capacity = max(1, num_rows // 3)
    batch_of_row = assign_batches(conflicts, num_batches=3, capacity=capacity, key=seed)
    for batch in range(3):
        assert disjoint([sets[row] for row in np.flatnonzero(batch_of_row == batch)])


def test_rows_of_equal_length_are_planned_as_columns() -> None:
    hashes = np.random.default_rng(0).integers(0, 9000, (2, 5000), dtype=np.uint64)
    lists = RaggedValues(hashes.T.reshape(-1).copy(), np.arange(5001) * 2)
    columns = plan_of(NoDuplicates(), [SourceInfo("a", 5000, lambda: hashes)])
    rows = plan_of(NoDuplicates(), [info_of(lists)])
    assert [b.rows.tolist() for b in columns] == [b.rows.tolist() for b in rows]


@pytest.mark.parametrize("texts", [1 << 40, 60_000, 3000, 300])
@pytest.mark.parametrize("drop_last", [True, False])
def test_no_query_or_positive_twice(texts: int, drop_last: bool) -> None:
    lists = lists_of(9000, texts=texts)
    plan = plan_of(NoDuplicates(), [info_of(lists)], drop_last=drop_last)
    check(plan, lists)
    if texts >= 60_000:
        assert plan.num_steps == 9000 // 32 + (not drop_last)


def test_keys_keep_rows_apart_too() -> None:
    lists, keys = lists_of(4000, texts=40_000), np.arange(4000, dtype=np.uint64) % 500
    plan = plan_of(NoDuplicates(), [info_of(lists, keys=lambda: keys)])
    assert plan.num_steps == 125
    check(plan, lists, keys)


def test_streamed_rows() -> None:
    lists = lists_of(4000, texts=40_000)
    stream = StreamInfo((900, 1100, 1000, 1000), buffer_files=2)
    plan = plan_of(NoDuplicates(), [info_of(lists, stream=stream)])
    assert plan.num_steps >= 124
    check(plan, lists)


def test_rows_that_share_too_many_values_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows with long lists of shared texts must not widen the table of all tied rows."""
    lists = lists_of(3000, most=3, texts=9000)
    long = [np.random.default_rng(i).choice(lists.values, 200) for i in range(8)]
    values = np.concatenate([lists.values, *long])
    lengths = np.concatenate([lists.lengths, [200] * 8])
    lists = RaggedValues(values, np.append(0, np.cumsum(lengths)))
    wide = find_conflicts(lists)
    assert wide.groups_TV.shape[1] > 150
    monkeypatch.setattr(conflicts_module, "_MAX_CELLS", 8 * 3008)
    narrow = find_conflicts(lists)
    assert narrow.groups_TV.size <= 8 * 3008
    assert not narrow.is_easy(64, 100)
    batch_of_row = assign_batches(narrow, num_batches=40, capacity=50, key=1)
    assert (batch_of_row[-8:] == -1).all()
    sets = sets_of(lists)
    for batch in range(40):
        assert disjoint([sets[row] for row in np.flatnonzero(batch_of_row == batch)])
    plan = plan_of(NoDuplicates(), [info_of(lists)])
    check(plan, lists)


def test_easy_windows_are_solved_as_promised() -> None:
    easy = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        num_batches, capacity = int(generator.integers(2, 65)), int(generator.integers(1, 30))
        size = num_batches * capacity
        conflicts = find_conflicts(lists_of(size, most=2, texts=max(2, 3 * size * seed), seed=seed))
        batch_of_row = assign_batches(
            conflicts, num_batches=num_batches, capacity=capacity, key=seed
        )
        if conflicts.is_easy(num_batches, capacity):
            easy += 1
            assert np.bincount(batch_of_row + 1)[0] == 0
    assert 5 < easy < 28


def test_windows_of_long_lists_hold_fewer_rows() -> None:
    assert window_rows_of(1 << 15, 2) == window_rows_of(1 << 15) == 64 << 15
    assert window_rows_of(1 << 15, 32) == 16 << 15
    assert window_rows_of(1 << 15, 1000) == 8 << 15


def test_take_and_merge_against_slices() -> None:
    lists = lists_of(50_000)
    rows = np.random.default_rng(1).permutation(50_000)[:40_000]
    taken = take_lists(lists, rows, further_n=rows.astype(np.uint64))
    assert isinstance(taken, RaggedValues)
    for place in (0, 1, 16_383, 16_384, 39_999):
        row = rows[place]
        expected = [*lists.values[lists.offsets[row] : lists.offsets[row + 1]].tolist(), row]
        assert taken.take(np.array([place])).values.tolist() == expected
    assert take_lists(lists, rows[:0]).offsets.tolist() == [0]  # type: ignore[union-attr]
    matrix = np.arange(6, dtype=np.uint64).reshape(3, 2)
    merged = merge([taken.take(np.arange(2)), matrix], np.array([1, 0, 1, 0, 1]))
    assert isinstance(merged, RaggedValues)
    parts = np.split(merged.values, merged.offsets[1:-1])
    assert [part.tolist() for part in parts[::2]] == [[0, 1], [2, 3], [4, 5]]
    assert np.concatenate(parts[1::2]).tolist() == taken.take(np.arange(2)).values.tolist()


MIXERS = {
    "round_robin": RoundRobin,
    "proportional": Proportional,
    "temperature": Temperature,
    "weighted": partial(Weighted, {"a": 1, "b": 2, "c": 1}),
}


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("mixed", [True, False])
def test_mixers_know_lists(mixer: str, mixed: bool) -> None:
    """Two sources with lists, one of them with keys, and one with columns."""
    lists = {"a": lists_of(900, texts=9000), "b": lists_of(700, texts=9000, seed=1)}
    hashes = lists_of(900, most=1, texts=9000, seed=2).values[:1000].reshape(500, 2).T
    keys = np.arange(900, dtype=np.uint64) % 300
    sources = [
        info_of(lists["a"], keys=lambda: keys),
        info_of(lists["b"], "b"),
        SourceInfo("c", 500, lambda: hashes),
    ]
    sets = [*map(sets_of, lists.values()), [set(row) for row in hashes.T.tolist()]]
    plan = plan_of(MIXERS[mixer](NoDuplicates(), mixed=mixed), sources)
    assert plan.num_steps >= 45
    seen = set()
    for batch in plan:
        of_row = np.full(32, batch.source) if batch.sources is None else batch.sources
        assert disjoint([sets[s][row] for s, row in zip(of_row, batch.rows)])
        keyed = keys[batch.rows[of_row == 0]]
        assert len(np.unique(keyed)) == len(keyed)
        seen.update(of_row.tolist())
    assert seen == {0, 1, 2}


def test_a_mixture_with_a_streamed_source_of_lists() -> None:
    lists = [lists_of(1200, texts=9000), lists_of(800, texts=9000, seed=1)]
    stream = StreamInfo((300,) * 4, buffer_files=2)
    sources = [info_of(lists[0], stream=stream), info_of(lists[1], "b")]
    plan = plan_of(Proportional(NoDuplicates(), mixed=True), sources)
    assert plan.num_steps >= 60
    sets = [sets_of(each) for each in lists]
    for batch in plan:
        assert batch.sources is not None
        assert disjoint([sets[s][row] for s, row in zip(batch.sources, batch.rows)])


def test_duplicate_share_of_lists() -> None:
    lists = lists_of(64)
    plan = plan_of(Shuffled(), [info_of(lists)], global_batch_size=16)
    lists.values[0] = lists.values[1]  # twice in one row
    assert duplicate_share(lists, plan) == 0
    first, second = plan.batch(1).rows[[2, 5]]
    lists.values[lists.offsets[first + 1] - 1] = lists.values[lists.offsets[second]]
    assert duplicate_share(lists, plan) == 1 / 4


def printed(info: SourceInfo) -> dict[str, Any]:
    return json.loads(
        json.dumps(plan_fingerprint([info], NoDuplicates(), global_batch_size=8, seed=0))
    )


def with_negatives(
    texts: RaggedValues, positives: np.ndarray, choice: dict[str, Any] | None = None
) -> SourceInfo:
    """Rows whose texts behind the positives are negatives."""
    known = 1 + positives
    first = np.concatenate([np.arange(n) < k for n, k in zip(texts.lengths, known)])
    conflicts = RaggedValues(texts.values[first], np.append(0, np.cumsum(known)))
    return SourceInfo(
        "a",
        len(positives),
        conflicts=lambda: conflicts,
        ragged=lambda: texts,
        lists=choice or {"max_negatives": 4},
    )


def test_fingerprint_of_lists(tmp_path: Path) -> None:
    texts, positives = lists_of(3000), np.ones(3000, dtype=np.int64)
    saved = printed(with_negatives(texts, positives))
    np.save(tmp_path / "values.npy", texts.values)
    mapped = RaggedValues(np.load(tmp_path / "values.npy", mmap_mode="r"), texts.offsets)
    check_same_plan(saved, printed(with_negatives(mapped, positives)))
    values, offsets, further = texts.values.copy(), texts.offsets.copy(), positives.copy()
    values[-1] += np.uint64(1)
    row = int(np.flatnonzero(texts.lengths > 3)[5])
    offsets[row] += 1  # a text moves to the row before
    further[row] += 1  # a negative becomes a positive
    for changed, what in (
        (with_negatives(RaggedValues(values, texts.offsets), positives), "the texts of source 'a'"),
        (with_negatives(RaggedValues(texts.values, offsets), positives), "the lists of source 'a'"),
        (with_negatives(texts, further), "the positives of source 'a'"),
        (with_negatives(texts, positives, {"max_negatives": 8}), "lists.a.max_negatives is 8"),
    ):
        with pytest.raises(ConfigError, match=f"^{what} "):
            check_same_plan(saved, printed(changed))


@pytest.mark.parametrize("sampler", [Shuffled(), NoDuplicates()])
def test_a_resumed_plan_goes_on(sampler: Any) -> None:
    info = info_of(lists_of(3000, texts=20_000))
    batches = [batch.rows.tolist() for batch in plan_of(sampler, [info])]
    again = plan_of(sampler, [info])
    assert again.batch(70).rows.tolist() == batches[70]
    assert batches != [b.rows.tolist() for b in plan_of(sampler, [info], epoch=1)]
