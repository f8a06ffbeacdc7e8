"""Yields the slices that a rank reads, in order: the sampler of its DataLoader.

Plans follow one another without a gap, and an epoch is as many batches as the first plan has. Plans of
equal size are the epochs then. Where they differ by a few batches (texts so popular that not all rows
find a place), an epoch begins inside a plan: no plan is cut or lost, and the number of
steps of a run is known before its first one.

The plan knows nothing of ranks; the feed slices it. The position is that of the last batch that was trained
on, not of the last one that workers have fetched ahead, so a resumed run continues with the very next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from inbatch.batch.slices import slice_rows
from inbatch.data.plan.plan import GlobalBatch, Plan, PlannedSlice

Position = dict[str, int]
_ORIGIN: Position = {"epoch": 0, "step": 0, "plan": 0, "plan_step": 0}


class RankFeed(Sampler[PlannedSlice]):
    """Yields this rank's slice of each global batch of an epoch.

    A position is {"epoch", "step"} of the run and {"plan", "plan_step"} of the batch there.

    Args:
        plan_of: number -> plan; the samplers call it an epoch.
        rank: whose slice.
        world_size: number of slices.
        document_counts: global batch -> documents of each row, int64 [B]; None where rows have no lists.
    """

    def __init__(
        self,
        plan_of: Callable[[int], Plan],
        *,
        rank: int,
        world_size: int,
        document_counts: Callable[[GlobalBatch], np.ndarray | None] | None = None,
    ) -> None:
        self._plan_of = plan_of
        self._document_counts = document_counts
        self._rank = rank
        self._world_size = world_size
        self._plan = plan_of(0)
        self._sizes = {0: self._plan.num_steps}  # batches of the plans seen so far
        self._known = dict(_ORIGIN)  # a position from which later ones are found
        self._epoch = 0

    def __len__(self) -> int:
        return self._sizes[0]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; Lightning calls this before each."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[PlannedSlice]:
        place, epoch = self._start(), self._epoch
        while place["epoch"] == epoch:
            batch = self._open(place["plan"]).batch(place["plan_step"])
            yield PlannedSlice(
                step=place["step"],
                source=batch.source,
                rows=self._slice(batch.rows),
                num_global_rows=len(batch.rows),
                sources=None if batch.sources is None else self._slice(batch.sources),
                epoch=place["plan"],
                documents_of_ranks=self._documents_of_ranks(batch),
            )
            place = self._walk(place, 1)

    def resume(self, position: Position) -> None:
        """Begin the next iteration at a position."""
        self._known, self._epoch = dict(position), position["epoch"]

    def position_after(self, step: int) -> Position:
        """The position behind a step of this epoch."""
        start = self._start()
        return self._walk(start, step + 1 - start["step"])

    def global_rows(self, step: int) -> np.ndarray:
        """Rows of all ranks at a step of this epoch, int64 [B]."""
        place = self.position_after(step - 1)
        return self._open(place["plan"]).batch(place["plan_step"]).rows

    def _start(self) -> Position:
        """The position at which this epoch begins or resumes."""
        if self._epoch < self._known["epoch"]:
            self._known = dict(_ORIGIN)
        if self._epoch > self._known["epoch"]:
            left = len(self) - self._known["step"]
            epochs = self._epoch - self._known["epoch"] - 1
            self._known = self._walk(self._known, left + epochs * len(self))
        return self._known

    def _walk(self, place: Position, count: int) -> Position:
        """The position `count` batches later."""
        plan, inside = place["plan"], place["plan_step"] + count
        while inside and inside >= self._size(plan):  # at 0 the next plan need not be made yet
            inside -= self._size(plan)
            plan += 1
        epoch, step = divmod(place["step"] + count, len(self))
        return {"epoch": place["epoch"] + epoch, "step": step, "plan": plan, "plan_step": inside}

    def _size(self, plan: int) -> int:
        if plan not in self._sizes:
            self._open(plan)
        return self._sizes[plan]

    def _open(self, number: int) -> Plan:
        if self._plan.epoch != number:
            self._plan = self._plan_of(number)
            self._sizes[number] = self._plan.num_steps
        return self._plan

    def _documents_of_ranks(self, batch: GlobalBatch) -> tuple[int, ...] | None:
        counts_B = None if self._document_counts is None else self._document_counts(batch)
        if counts_B is None:
            return None
        ranks = range(self._world_size)
        return tuple(int(slice_rows(counts_B, rank, self._world_size).sum()) for rank in ranks)

    def _slice(self, rows: np.ndarray) -> np.ndarray:
        return slice_rows(rows, self._rank, self._world_size)
