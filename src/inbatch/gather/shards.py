"""Tensors that may be shards of a larger one."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor; collective where it is in shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """The part that this rank holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
