"""What a rank reads, in order: the sampler of its DataLoader.

The plan knows nothing of ranks; the feed slices it. The position is that of the last batch that was trained
on, not of the last one that workers have fetched ahead, so a resumed run goes on with the very next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from inbatch.data.collate import PlannedSlice
from inbatch.data.plan import Plan, State, slice_rows


class RankFeed(Sampler[PlannedSlice]):
    """Yields this rank's slice of each global batch of an epoch.

    Args:
        plan_of: epoch -> plan.
        rank: whose slice.
        world_size: number of slices.
    """

    def __init__(self, plan_of: Callable[[int], Plan], *, rank: int, world_size: int) -> None:
        self._plan_of = plan_of
        self._rank = rank
        self._world_size = world_size
        self._plan = plan_of(0)
        self._next: State = self._plan.start()  # where the next iteration begins

    def __len__(self) -> int:
        return self._plan.num_steps

    @property
    def epoch(self) -> int:
        """The epoch that is planned."""
        return self._plan.epoch

    def set_epoch(self, epoch: int) -> None:
        """Plan another epoch; called by Lightning before each."""
        if epoch != self.epoch:
            self._plan = self._plan_of(epoch)
            self._next = self._plan.start()

    def __iter__(self) -> Iterator[PlannedSlice]:
        state, self._next = self._next, self._plan.start()
        while state["step"] < self._plan.num_steps:
            batch, state = self._plan.next(state)
            yield PlannedSlice(
                step=batch.step,
                source=batch.source,
                rows=self._own(batch.rows),
                num_global_rows=len(batch.rows),
                sources=None if batch.sources is None else self._own(batch.sources),
            )

    def _own(self, rows: np.ndarray) -> np.ndarray:
        return slice_rows(rows, self._rank, self._world_size)

    def resume(self, state: State) -> None:
        """Begin the next iteration at a state, or with the epoch after it where that one is over."""
        self.set_epoch(state["epoch"])
        if state["step"] < self._plan.num_steps:
            self._next = state
        else:
            self.set_epoch(state["epoch"] + 1)
