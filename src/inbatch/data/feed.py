"""What a rank reads, in order: the sampler of its DataLoader.

The plan knows nothing of ranks; the feed slices it. The position is a value: it is taken at the last batch
that was trained on, not at the last one that workers have fetched ahead, so a resumed run goes on
with the very next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import Sampler

from inbatch.data.collate import PlannedSlice
from inbatch.data.plan import Plan, slice_rows


class RankFeed(Sampler[PlannedSlice]):
    """Yields this rank's slice of each global batch of an epoch.

    Args:
        plan_of: epoch -> plan.
        rank, world_size: whose slice.
    """

    def __init__(self, plan_of: Callable[[int], Plan], *, rank: int, world_size: int) -> None:
        self._plan_of = plan_of
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0
        self._plan = plan_of(0)
        self._after: dict[int, Any] = {}  # step -> state that follows it, for steps in flight
        self._resume: dict[str, Any] | None = None

    def __len__(self) -> int:
        return self._plan.num_steps

    def set_epoch(self, epoch: int) -> None:
        """Plan another epoch; called by Lightning before each."""
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._plan_of(epoch)

    def __iter__(self) -> Iterator[PlannedSlice]:
        state, step = self._plan.start(), 0
        if self._resume is not None and self._resume["epoch"] == self._epoch:
            state, step = self._resume["state"], self._resume["step"] + 1
        self._resume = None
        self._after.clear()
        while step < self._plan.num_steps:
            batch, state = self._plan.next(state)
            self._after[step] = state
            step += 1
            yield PlannedSlice(
                step=batch.step,
                source=batch.source,
                rows=slice_rows(batch.rows, self._rank, self._world_size),
                num_global_rows=len(batch.rows),
            )

    def state_after(self, step: int) -> dict[str, Any]:
        """Where to go on after the given step of this epoch; forgets earlier steps."""
        self._after = {key: value for key, value in self._after.items() if key >= step}
        return {"epoch": self._epoch, "step": step, "state": self._after[step]}

    def load_state(self, saved: dict[str, Any]) -> None:
        """Start the next iteration where `state_after` was taken, or with the epoch after it."""
        self._resume = saved
        self.set_epoch(saved["epoch"])
        if saved["step"] + 1 >= self._plan.num_steps:
            self.set_epoch(saved["epoch"] + 1)
