"""The collectives of a training step; a strategy may reduce gradients in its own way.

Shape letters: b rows of this rank, G rows of all ranks, K numbers per row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from inbatch.gather.shards import local_part

try:  # torch >= 2.13 renames both and warns on the old names
    from torch.distributed import all_gather_single, reduce_scatter_single
except ImportError:
    from torch.distributed import all_gather_into_tensor as all_gather_single
    from torch.distributed import reduce_scatter_tensor as reduce_scatter_single


class _AllGatherRows(torch.autograd.Function):
    """Forward: concatenate rows over ranks. Backward: sum over ranks, keep the own rows."""

    @staticmethod
    def forward(
        ctx: Any, local_bK: Tensor, counts: tuple[int, ...], exact_in: torch.dtype | None
    ) -> Tensor:
        ctx.counts = counts
        ctx.num_rows = local_bK.shape[0]
        if exact_in is None:
            return PendingRows(local_bK, counts).wait()
        packed = local_bK.to(exact_in).view(torch.uint8)  # gloo knows no bfloat16
        return PendingRows(packed, counts).wait().view(exact_in).to(local_bK.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad_GK,) = grads
        most = max(ctx.counts)
        padded = _spread(grad_GK.contiguous(), ctx.counts, most)
        own = grad_GK.new_empty(most, *grad_GK.shape[1:])
        reduce_scatter_single(own, padded, op=dist.ReduceOp.SUM)
        return own[: ctx.num_rows], None, None


class PendingRows:
    """An all-gather of rows under way; `wait` gives the rows of all ranks in rank order."""

    def __init__(self, local_bK: Tensor, counts: Sequence[int]) -> None:
        self._counts = tuple(counts)
        most = max(self._counts)
        padded = local_bK.contiguous()
        if padded.shape[0] < most:
            padded = torch.cat([padded, padded.new_zeros(most - len(padded), *padded.shape[1:])])
        self._all = padded.new_empty(most * len(self._counts), *padded.shape[1:])
        self._source = padded  # keeps the memory alive until the transfer has ended
        self._work = all_gather_single(self._all, padded, async_op=True)

    def wait(self) -> Tensor:
        """Block until the rows have arrived: [G, K]."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        most = max(self._counts)
        if min(self._counts) == most:
            return self._all
        parts = [self._all[i * most : i * most + n] for i, n in enumerate(self._counts)]
        return torch.cat(parts)


def all_gather_rows(
    local_bK: Tensor, counts: Sequence[int], *, exact_in: torch.dtype | None = None
) -> Tensor:
    """Rows of all ranks, differentiable: one all-gather, and one reduce-scatter in backward.

    Args:
        local_bK: this rank's rows, [counts[rank], ...].
        counts: rows per rank, known to every rank from the plan, so no sizes are exchanged.
        exact_in: a 16-bit type that holds the values exactly: half the bytes on the way. None for none.

    Returns:
        [G, ...] in rank order. Its backward sums the gradients of all ranks for each row, in the rows' type.
    """
    return _AllGatherRows.apply(local_bK, tuple(counts), exact_in)


def max_over_ranks(values: Sequence[int], device: torch.device) -> list[int]:
    """Largest of each integer over the ranks: one all-reduce of a few bytes."""
    tensor = torch.tensor(values, dtype=torch.int64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [int(value) for value in tensor.tolist()]


def largest(value: int, device: torch.device) -> int:
    """Largest of an integer over the ranks, or of this process alone where no others are."""
    return max_over_ranks([value], device)[0] if dist.is_initialized() else value


def counts_of_ranks(count: int, device: torch.device) -> tuple[int, ...]:
    """A count of each rank: one all-gather of eight bytes, for which a GPU's host waits."""
    own = torch.tensor([count], dtype=torch.int64, device=device)
    counts = own.new_empty(dist.get_world_size())
    all_gather_single(counts, own)
    return tuple(counts.tolist())


class PendingMax:
    """Largest of an integer over the ranks, under way: one all-reduce of four bytes.

    Neither sending nor receiving waits for the device: the value is written there by a kernel, and
    comes back into pinned memory behind the reduction.
    """

    def __init__(self, value: int, device: torch.device) -> None:
        self._value = torch.full((1,), value, dtype=torch.int32, device=device)
        self._work = dist.all_reduce(self._value, op=dist.ReduceOp.MAX, async_op=True)
        self._arrived: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._work.wait()  # the copy follows the reduction; the host goes on
            self._value = self._value.to("cpu", non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def wait(self) -> int:
        """Block until the value has arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        else:
            self._work.wait()
        return int(self._value)


def _spread(rows_GK: Tensor, counts: Sequence[int], most: int) -> Tensor:
    """Rank-ordered rows with every rank's part padded to `most` rows, [len(counts) * most, K]."""
    if min(counts) == most:
        return rows_GK
    spread = rows_GK.new_zeros(len(counts) * most, *rows_GK.shape[1:])
    start = 0
    for rank, count in enumerate(counts):
        spread[rank * most : rank * most + count] = rows_GK[start : start + count]
        start += count
    return spread


def sum_over_ranks(values: Tensor) -> Tensor:
    """Element-wise sum over the ranks, without gradient: one all-reduce."""
    total = values.detach().clone()
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    return total


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the ranks: one all-reduce per parameter.

    A parameter without a gradient on this rank counts as zero.
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradient = local_part(parameter.grad)
        dist.all_reduce(gradient, op=dist.ReduceOp.SUM)
        gradient /= dist.get_world_size()


def rank_and_world_size() -> tuple[int, int]:
    """This process among those of the default group; 0 of 1 where there is none."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def barrier() -> None:
    """Return once all ranks have called it; at once where there is no group."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
