"""The collectives of FSDP2's units, some of which a rank can leave out.

A rank that has run out of memory in the middle of a pass goes through the passes of its batch once more, with
next to no data. Of the collectives that it meets on the way it leaves out as many as it has taken part in, so
that the others meet it at the one that they wait for. Their order depends on the passes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup, ReduceOp, Work
from torch.distributed.fsdp import FSDPModule

from inbatch import compat
from inbatch.gather.collectives import all_gather_single, reduce_scatter_single
from inbatch.gradcache import Collectives


@final
class UnitCollectives(Collectives):
    """Counts the collectives of an encoder's units.

    Args:
        encoder: in units.
        whole: parameters that are in none.
    """

    def __init__(self, encoder: FSDPModule, whole: Sequence[nn.Parameter] = ()) -> None:
        assert isinstance(encoder, nn.Module)
        self._encoder, self._whole = encoder, whole
        self._units = [unit for unit in encoder.modules() if isinstance(unit, FSDPModule)]
        self._num_done = self._number = 0  # that took place in the batch; of the current passes
        for unit in self._units:
            unit.set_custom_all_gather(_AllGather(self))  # type: ignore[arg-type]
            unit.set_custom_reduce_scatter(_ReduceScatter(self))  # type: ignore[arg-type]

    def start(self) -> None:
        """A batch begins: all units are in shards, also the one that an evaluation has left gathered."""
        for unit in self._units:
            unit.reshard()
        self._num_done = self._number = 0

    def start_over(self) -> None:
        """Bring the units back to the start of the batch."""
        compat.reset_units(self._encoder)
        self._number = 0

    def forget(self) -> None:
        """Drop gradients, whole ones and shards."""
        compat.reset_units(self._encoder)
        compat.drop_unit_gradients(self._units)
        for parameter in self._whole:
            parameter.grad = None

    def takes_place(self) -> bool:
        """Count a collective; False if it took place before."""
        self._number += 1
        is_new = self._number > self._num_done
        self._num_done = max(self._num_done, self._number)
        return is_new


class _Memory:
    """Where collectives take and leave their data."""

    def __init__(self, collectives: UnitCollectives) -> None:
        self._collectives = collectives

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory for either side."""
        return torch.empty(*size, dtype=dtype, device=device)


@final
class _AllGather(_Memory):
    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: ProcessGroup,
        async_op: bool = False,
    ) -> Work | None:
        if not self._collectives.takes_place():
            output_tensor.zero_()
            return None
        work: Work | None = all_gather_single(output_tensor, input_tensor, group, async_op)
        return work


@final
class _ReduceScatter(_Memory):
    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: ProcessGroup,
        op: ReduceOp,
        async_op: bool = False,
    ) -> Work | None:
        if not self._collectives.takes_place():
            output_tensor.zero_()
            return None
        work: Work | None = reduce_scatter_single(output_tensor, input_tensor, op, group, async_op)
        return work
