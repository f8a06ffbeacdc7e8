"""The rows that the loss of a batch sees.

Shape letters: b rows of this rank, C text columns, N embedded texts, T texts of ragged rows, M documents, D
dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from inbatch.batch.batch import Batch
from inbatch.batch.documents import Documents
from inbatch.errors import ConfigError
from inbatch.gather import Gather, GlobalGather, LocalGather, Rows, RowsRing, counts_of_ranks
from inbatch.guide import Process
from inbatch.losses.base import Loss, VisibleDocuments
from inbatch.step.copies import spread


class VisibleRows(NamedTuple):
    """How the rows of a batch reach its loss."""

    gather: Gather
    rows: Rows
    # The way to the rows of other ranks, where the loss needs them and `gather` does not hold them.
    ring: RowsRing | None

    def local(self, values_ND: Tensor, batch: Batch) -> Tensor:
        """Embeddings of this rank as they are gathered: [b, C, D], or [T, D] of ragged rows."""
        if batch.documents is not None:
            return spread(values_ND, batch.copies)
        by_column = values_ND.view(batch.num_columns, batch.num_rows, values_ND.shape[1])
        return by_column.transpose(0, 1)

    def columns(self, local: Tensor, *, exact_in: torch.dtype | None) -> tuple[Tensor, ...]:
        """Columns of the batch that the loss sees, each [G, D]; of ragged rows queries and documents.

        Args:
            local: of this rank.
            exact_in: a 16-bit type that holds the embeddings exactly; None for none.
        """
        if self.rows.texts:
            return self.gather.texts(local, self.rows, exact_in=exact_in)
        return self.gather.embeddings(local.transpose(0, 1), self.rows, exact_in=exact_in)

    def documents(self, batch: Documents, owner: Tensor, is_positive: Tensor) -> VisibleDocuments:
        """The visible documents.

        A rank without rows borrows the first one, of whose documents the first is a positive.

        Args:
            batch: documents of this rank.
            owner: row of each visible document, [M].
            is_positive: whether it is one of the row's positives, [M].
        """
        own = (batch.counts, batch.positives) if len(batch.counts) else (np.ones(1, int),) * 2
        first = self.rows.first_document if len(batch.counts) else 0
        return VisibleDocuments(owner, is_positive, first, *own)

    def room(self, tensors: Sequence[Tensor]) -> int:
        """Bytes that it takes at most to gather some tensors, each [b, ...] or [T, ...], or to go back.

        Those of all ranks, equal counts once more where they are not, and the own ones.
        """
        if isinstance(self.gather, LocalGather):
            return 0
        counts = self.rows.transfers
        copies = len(counts) * (1 if min(counts) == max(counts) else 2) + 2
        row_bytes = sum(math.prod(t.shape[1:]) * t.element_size() for t in tensors)
        return copies * max(counts) * row_bytes


def visible_rows(
    batch: Batch,
    loss: Loss,
    *,
    mode: Literal["global", "ring", "local"],
    process: Process,
) -> VisibleRows:
    """Row losses see the rows of this rank; losses of the whole batch see all of them.

    A rank without rows (in a last batch smaller than the world) borrows a gathered row at weight 0.

    Raises:
        ConfigError: ragged rows are to travel in a ring.
    """
    rank, world_size = process.rank, process.world_size
    alone, full = world_size == 1, batch.num_global_rows >= world_size
    in_ring = mode == "ring" and loss.scope == "candidates" and loss.takes_ring
    apart = in_ring or loss.scope == "row" or mode == "local"
    kind = LocalGather if alone or (apart and full) else GlobalGather
    gather: Gather = kind(rank=rank, world_size=world_size)
    rows = gather.rows(batch.num_rows, batch.num_global_rows)
    ring = RowsRing(rows.counts, rows.rank) if in_ring and full and not alone else None
    if batch.documents is None:
        return VisibleRows(gather, rows, ring)
    if ring is not None:
        raise ConfigError(
            "gather", "does not know rows with lists", "set gather=global", value="ring"
        )
    texts = [(batch.num_rows, batch.documents.num)]
    if kind is GlobalGather:
        of_ranks = batch.documents.of_ranks or counts_of_ranks(batch.documents.num, process.device)
        if of_ranks[rank] != batch.documents.num:
            raise ValueError(
                f"this rank holds {batch.documents.num} documents where the plan gives it {of_ranks[rank]}"
            )
        texts = list(zip(rows.counts, of_ranks, strict=True))
    return VisibleRows(gather, replace(rows, texts=tuple(texts)), None)
