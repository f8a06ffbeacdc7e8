"""Plans of unequal size as epochs of equal size: no batch cut or lost, and exact from every position."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import accumulate, chain

import numpy as np
import pytest

from inbatch.data.plan.plan import Plan, PlannedSlice
from inbatch.data.plan.rank_feed import RankFeed

SIZES = [5, 4, 4, 7, 1, 2, 5, 6, 3, 9]
FIRST_OF_PLAN = [0, *accumulate(SIZES)]
ROWS = 6


@dataclass
class Numbered:
    """Batches whose rows tell which one of all it is."""

    first: int
    num_batches: int

    def rows(self, index: int) -> np.ndarray:
        """ROWS consecutive numbers."""
        return np.arange(ROWS) + (self.first + index) * ROWS

    def num_rows_in(self, num_batches: int) -> int:
        """All."""
        return num_batches * ROWS


@dataclass
class Plans:
    """Makes the plans and notes which."""

    sizes: list[int] = field(default_factory=lambda: SIZES)
    made: list[int] = field(default_factory=list)

    def __call__(self, number: int) -> Plan:
        """One plan."""
        self.made.append(number)
        first = sum(self.sizes[:number])
        stream = Numbered(first, self.sizes[number])
        steps = np.zeros(self.sizes[number], dtype=np.int64)
        return Plan(number, ("a",), (stream,), steps, {})


def feed_of(plans: Plans | None = None, rank: int = 0, world_size: int = 1) -> RankFeed:
    return RankFeed(plans or Plans(), rank=rank, world_size=world_size)


def epoch_of(feed: RankFeed, epoch: int) -> list[PlannedSlice]:
    feed.set_epoch(epoch)
    return list(feed)


def numbers(slices: list[PlannedSlice]) -> list[int]:
    return [int(item.rows[0]) // ROWS for item in slices]


def test_epochs_are_of_one_size_and_leave_no_batch_out() -> None:
    feed = feed_of()
    epochs = [epoch_of(feed, epoch) for epoch in range(9)]
    assert len(feed) == 5
    assert [[item.step for item in slices] for slices in epochs] == [list(range(5))] * 9
    assert numbers(list(chain(*epochs))) == list(range(45))


@pytest.mark.parametrize("num_ahead", [0, 3])
def test_a_run_goes_on_from_every_position(num_ahead: int) -> None:
    """`num_ahead` batches are fetched before the position of an earlier one is asked for."""
    whole, positions = feed_of(), []
    for epoch in range(8):
        whole.set_epoch(epoch)
        fetched = iter(whole)
        ahead = [next(fetched) for _ in range(num_ahead)]
        for step in range(5):
            ahead += [item for item in [next(fetched, None)] if item is not None]
            position = whole.position_after(step)
            positions.append(json.loads(json.dumps(position)))
    for number, position in enumerate(positions):
        feed = feed_of()
        feed.resume(position)
        rest = list(feed)
        assert len(feed) == 5
        for epoch in range(position["epoch"] + 1, 9):
            rest += epoch_of(feed, epoch)
        assert numbers(rest) == list(range(number + 1, 45))
        assert rest[0].step == (number + 1) % 5


def test_the_last_batch_of_an_epoch_asks_for_no_further_plan() -> None:
    plans = Plans()
    feed = feed_of(plans)
    epoch_of(feed, 0)
    assert feed.position_after(4) == {"epoch": 1, "step": 0, "plan": 1, "plan_step": 0}
    assert plans.made == [0]
    epoch_of(feed, 1)
    assert plans.made == [0, 1, 2]


def test_an_epoch_is_found_without_those_before() -> None:
    feed = feed_of()
    wanted = [epoch_of(feed, epoch) for epoch in range(9)]
    for epoch in (7, 2, 8, 0):  # back and forth, as whoever looks at batches may
        assert numbers(epoch_of(feed, epoch)) == numbers(wanted[epoch])


def test_ranks_read_the_same_batches() -> None:
    whole = [feed_of(), *(feed_of(rank=rank, world_size=3) for rank in range(3))]
    for epoch in range(8):
        one, *ranks = [epoch_of(feed, epoch) for feed in whole]
        for item, *parts in zip(one, *ranks, strict=True):
            assert np.array_equal(np.concatenate([part.rows for part in parts]), item.rows)
            assert {part.step for part in parts} == {item.step}
    assert len({str(feed.position_after(2)) for feed in whole}) == 1


def test_epochs_of_equal_plans_are_the_plans() -> None:
    plans = Plans(sizes=[4] * 5)
    feed = feed_of(plans)
    for epoch in range(5):
        assert numbers(epoch_of(feed, epoch)) == list(range(4 * epoch, 4 * epoch + 4))
    assert plans.made == list(range(5))
