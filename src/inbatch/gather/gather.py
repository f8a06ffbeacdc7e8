"""Local embeddings -> the global batch that a loss sees.

Scale contract: a loss returns the mean over the rows that this rank owns. The gather's backward sums
over ranks. The strategy averages gradients over ranks. So the update equals that of one process with
the global batch. `Rows.weight` below is the one place that knows the world size: it is 1 except where
ranks hold different numbers of rows (the last batch of an epoch), where a mean of means needs weights.

Collectives of a step, whatever the number of chunks, columns and negatives:

=================  =====================  =====================================================
when               collective             bytes sent by each rank (b rows, C columns, W ranks)
=================  =====================  =====================================================
before the embeds  all-gather of data     (W - 1) * b * (C * Dg * 4 + 4 + C * 8), if a loss needs it
                                          (2 for the first 4 where a guide's rows are float16)
after the embeds   all-gather of columns  (W - 1) * b * C * D * 4, half of it for values of 16 bits
loss backward      reduce-scatter         (W - 1) * b * C * D * 4
last chunk         gradient reduction     the strategy's, once per parameter bucket
=================  =====================  =====================================================

Of ragged rows T texts are sent instead of b * C, with the place of each (9 bytes) among the data; all ranks
send as many as the one with most. Where no plan knows how many each has, ranks ask each other before.

With a `ring.RowsRing` beside `LocalGather` there are point-to-point transfers instead: W - 1 hops in the
forward of the loss (embeddings and data), and W - 1 of the same with W of gradients in its backward.

Shape letters: C columns, b local rows, T local texts, G global rows, M global documents, D dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from inbatch.batch.slices import split_rows
from inbatch.gather.collectives import PendingRows, all_gather_rows


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows of the global batch this rank owns, and what their mean weighs."""

    counts: tuple[int, ...]  # rows per rank, in rank order
    rank: int
    start: int  # first own row inside the batch that the loss sees
    # Of ragged rows: rows and documents of each rank whose texts the loss sees. Empty for columns.
    texts: tuple[tuple[int, int], ...] = ()

    @property
    def owned(self) -> slice:
        """Own rows inside the batch that the loss sees."""
        return slice(self.start, self.start + self.counts[self.rank])

    @property
    def transfers(self) -> tuple[int, ...]:
        """What each rank sends: rows, or the texts of ragged ones."""
        return tuple(map(sum, self.texts)) or self.counts

    @property
    def first_document(self) -> int:
        """First own document of ragged rows, inside the batch that the loss sees."""
        before = self.rank if len(self.texts) > 1 else 0
        return sum(documents for _, documents in self.texts[:before])

    def split(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [G, ...] and documents [M, ...], by rank, from the texts that ranks have sent."""
        parts = texts.split([size for sizes in self.texts for size in sizes])
        if len(parts) == 2:
            return parts[0], parts[1]
        return torch.cat(parts[::2]), torch.cat(parts[1::2])

    @property
    def weight(self) -> float:
        """Factor on the mean over own rows, so that the average over ranks is the global mean."""
        return self.counts[self.rank] * len(self.counts) / sum(self.counts)


class Pending(Protocol):
    """Data under way."""

    def wait(self) -> list[Tensor]:
        """The tensors of the global batch, [G, ...] each."""
        ...


class Gather(Protocol):
    """How a rank's rows become the batch that the loss sees."""

    def rows(self, num_local: int, num_global: int) -> Rows:
        """Rows per rank of a batch, from its two counts alone."""
        ...

    def embeddings(
        self, local_CbD: Tensor, rows: Rows, *, exact_in: torch.dtype | None = None
    ) -> tuple[Tensor, ...]:
        """Columns of the batch, each [G, D] of the same type; differentiable.

        Args:
            local_CbD: columns of this rank.
            rows: of the batch.
            exact_in: a 16-bit type that holds their values exactly, to travel in; None for none.
        """
        ...

    def texts(
        self, local_TD: Tensor, rows: Rows, *, exact_in: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """Queries [G, D] and documents [M, D] of ragged rows; differentiable.

        Args:
            local_TD: queries of this rank, and their documents behind them.
            rows: of the batch.
            exact_in: see `embeddings`.
        """
        ...

    def start_data(self, tensors: Sequence[Tensor], rows: Rows) -> Pending:
        """Begin to gather tensors without gradient, each [b, ...], or [T, ...] of ragged rows."""
        ...


@dataclass(frozen=True, slots=True)
class _Ready:
    tensors: list[Tensor]

    def wait(self) -> list[Tensor]:
        return self.tensors


@dataclass(frozen=True, slots=True)
class LocalGather:
    """Each rank holds its own rows only, and contrasts them alone but for a `RowsRing`.

    With one process they are the whole batch.
    """

    rank: int = 0
    world_size: int = 1

    def rows(self, num_local: int, num_global: int) -> Rows:
        """Own rows, weighted by their share of the global batch."""
        counts = split_rows(num_global, self.world_size)
        _check_rows(num_local, counts[self.rank], num_global)
        return Rows(counts, self.rank, start=0)

    def embeddings(
        self, local_CbD: Tensor, rows: Rows, *, exact_in: torch.dtype | None = None
    ) -> tuple[Tensor, ...]:
        """The local columns themselves."""
        return local_CbD.unbind(0)

    def texts(
        self, local_TD: Tensor, rows: Rows, *, exact_in: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """The local queries and documents."""
        return rows.split(local_TD)

    def start_data(self, tensors: Sequence[Tensor], rows: Rows) -> Pending:
        """The tensors themselves."""
        return _Ready(list(tensors))


@dataclass(frozen=True, slots=True)
class GlobalGather:
    """Every rank sees the embeddings of all ranks, and back-propagates into all of them."""

    rank: int
    world_size: int

    def rows(self, num_local: int, num_global: int) -> Rows:
        """Row counts by the plan's slicing rule: equal, or one apart."""
        counts = split_rows(num_global, self.world_size)
        _check_rows(num_local, counts[self.rank], num_global)
        return Rows(counts, self.rank, start=sum(counts[: self.rank]))

    def embeddings(
        self, local_CbD: Tensor, rows: Rows, *, exact_in: torch.dtype | None = None
    ) -> tuple[Tensor, ...]:
        """All columns in one all-gather; one reduce-scatter in backward, in the columns' type."""
        columns, num_rows, dimension = local_CbD.shape
        local = local_CbD.transpose(0, 1).reshape(num_rows, columns * dimension)
        gathered = all_gather_rows(local, rows.counts, exact_in=exact_in)
        return gathered.view(-1, columns, dimension).unbind(1)

    def texts(
        self, local_TD: Tensor, rows: Rows, *, exact_in: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """All texts as they lie, in one all-gather; one reduce-scatter in backward."""
        return rows.split(all_gather_rows(local_TD, rows.transfers, exact_in=exact_in))

    def start_data(self, tensors: Sequence[Tensor], rows: Rows) -> Pending:
        """All tensors as the bytes of one asynchronous all-gather; none for no tensors."""
        return _PackedRows(tensors, rows) if tensors else _Ready([])


class _PackedRows:
    """Tensors of any type side by side as bytes, so that one collective carries all of them."""

    def __init__(self, tensors: Sequence[Tensor], rows: Rows) -> None:
        self._like = [(t.dtype, t.shape[1:]) for t in tensors]
        packed = [_flat(t).view(torch.uint8) for t in tensors]
        self._widths = [p.shape[1] for p in packed]
        self._pending = PendingRows(torch.cat(packed, dim=1), rows.transfers)

    def wait(self) -> list[Tensor]:
        parts = self._pending.wait().split(self._widths, dim=1)
        if len(parts) > 1:  # even a single row, contiguous as it is, may lie at an odd place
            parts = [part.clone(memory_format=torch.contiguous_format) for part in parts]
        return [
            part.view(dtype).view(len(part), *shape)
            for part, (dtype, shape) in zip(parts, self._like, strict=True)
        ]


def _flat(tensor: Tensor) -> Tensor:
    """[b, ...] -> [b, K]; K is computed, since b may be 0, and without rows any strides are contiguous."""
    rows = tensor.contiguous() if tensor.numel() else tensor.new_empty(tensor.shape)
    return rows.view(len(tensor), math.prod(tensor.shape[1:]))


def _check_rows(num_local: int, expected: int, num_global: int) -> None:
    if num_local != expected:
        raise ValueError(
            f"this rank holds {num_local} rows of a global batch of {num_global} where the plan gives "
            f"it {expected}: batches must be sliced by inbatch.batch.slices.slice_rows"
        )
