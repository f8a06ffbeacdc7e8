"""The rows that the loss of a batch sees. Shape letter: b rows of this rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from inbatch.batch.batch import Batch
from inbatch.gather import Gather, GlobalGather, LocalGather, Rows, RowsRing
from inbatch.losses.base import Loss


class VisibleRows(NamedTuple):
    """How the rows of a batch reach its loss."""

    gather: Gather
    rows: Rows
    # The way to the rows of other ranks, where the loss needs them and `gather` does not hold them.
    ring: RowsRing | None

    def room(self, tensors: Sequence[Tensor]) -> int:
        """Bytes that it takes at most to gather the rows of some tensors, each [b, ...], or to go back.

        Those of all ranks, equal counts of rows once more where they are not, and the own ones.
        """
        if isinstance(self.gather, LocalGather):
            return 0
        counts = self.rows.counts
        copies = len(counts) * (1 if min(counts) == max(counts) else 2) + 2
        row_bytes = sum(math.prod(t.shape[1:]) * t.element_size() for t in tensors)
        return copies * max(counts) * row_bytes


def visible_rows(
    batch: Batch,
    loss: Loss,
    *,
    mode: Literal["global", "ring", "local"],
    rank: int,
    world_size: int,
) -> VisibleRows:
    """Row losses see the rows of this rank; losses of the whole batch see all of them.

    A rank without rows (in a last batch smaller than the world) borrows a gathered row at weight 0.
    """
    alone, full = world_size == 1, batch.num_global_rows >= world_size
    in_ring = mode == "ring" and loss.scope == "candidates"
    apart = in_ring or loss.scope == "row" or mode == "local"
    kind = LocalGather if alone or (apart and full) else GlobalGather
    gather: Gather = kind(rank=rank, world_size=world_size)
    rows = gather.rows(batch.num_rows, batch.num_global_rows)
    ring = RowsRing(rows.counts, rows.rank) if in_ring and full and not alone else None
    return VisibleRows(gather, rows, ring)
