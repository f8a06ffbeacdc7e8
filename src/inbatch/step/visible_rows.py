"""The rows that the loss of a batch sees, and the data that travels to it beside the embeddings.

Shape letters: C text columns, b rows of this rank, G rows that the loss sees, D and Dg dimensions.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from inbatch.batch.batch import Batch
from inbatch.gather import Gather, GlobalGather, LocalGather, Rows, RowsRing
from inbatch.gather.gather import Pending
from inbatch.losses.base import Loss, LossInput


class VisibleRows(NamedTuple):
    """How the rows of a batch reach its loss."""

    gather: Gather
    rows: Rows
    # The way to the rows of other ranks, where the loss needs them and `gather` does not hold them.
    ring: RowsRing | None


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


class SideData:
    """Guide embeddings, labels and text ids of a batch, on their way while its texts are embedded.

    Args:
        batch: the batch of this rank.
        loss: its loss, which says what it needs.
        visible: how its rows reach the loss.
        guide_ND: the guide's embeddings of all texts of this rank, in the batch's flat order; None where the
            loss needs none.
        device: where the loss is computed.
    """

    def __init__(
        self,
        batch: Batch,
        loss: Loss,
        visible: VisibleRows,
        *,
        guide_ND: Tensor | None,
        device: torch.device,
    ) -> None:
        self._has = (guide_ND is not None, batch.labels is not None, loss.needs_text_ids)
        self._visible = visible
        self._owned = visible.rows.owned if batch.num_rows else slice(0, 1)
        tensors = []
        if guide_ND is not None:
            shape = (batch.num_columns, batch.num_rows, guide_ND.shape[1])
            tensors.append(guide_ND.view(shape).transpose(0, 1))
        if batch.labels is not None:
            tensors.append(batch.labels)
        if loss.needs_text_ids:
            ids_BC = torch.from_numpy(np.ascontiguousarray(batch.text_ids.T).view(np.int64))
            tensors.append(ids_BC.to(device, non_blocking=True))
        self._pending: Pending = visible.gather.start_data(tensors, visible.rows)

    def wait(self) -> list[Tensor]:
        """Block until the data has arrived."""
        return self._pending.wait()

    def loss_input(
        self,
        columns: tuple[Tensor, ...],
        arrived: list[Tensor],
        *,
        exact_in: torch.dtype | None,
        mixed: bool,
    ) -> LossInput:
        """Put together what the loss sees.

        Args:
            columns: embeddings of the visible rows, each [G, D].
            arrived: the result of `wait`.
            exact_in: a 16-bit type that holds the embeddings exactly; None for none.
            mixed: the encoder computes in 16 bits.
        """
        tensors = iter(arrived)
        guided, labelled, with_ids = self._has
        guide = next(tensors).unbind(1) if guided else None
        labels = next(tensors) if labelled else None
        ids = next(tensors).unbind(1) if with_ids else None
        ring = self._visible.ring
        return LossInput(columns, self._owned, labels, guide, ids, ring, exact_in, mixed)
