"""The formulas of merging, on one tensor of each model.

Sums are in float32 (float64 of float64 tensors), whatever the weights are stored in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

#: The tensors of one name, model by model, and the models' shares -> the merged tensor, in float32 at least.
Combine = Callable[[Iterable[Tensor], Sequence[float]], Tensor]

SLICE = 2**20  # values
PARALLEL = 0.9995  # cosine from which on an arc is computed as a line, which it then is to float32


def mean(tensors: Iterable[Tensor], shares: Sequence[float]) -> Tensor:
    """``sum_i shares_i * tensors_i``, added up in the order of the models.

    Args:
        tensors: of one shape; each is let go before the next is asked for.
        shares: that add up to one.
    """
    total: Tensor | None = None
    for tensor, share in zip(tensors, shares, strict=True):
        wide = _wide(tensor)
        total = wide * share if total is None else total.add_(wide, alpha=share)
    assert total is not None
    return total


def slerp(tensors: Iterable[Tensor], shares: Sequence[float]) -> Tensor:
    """Spherical linear interpolation of two tensors, each taken as one vector (Shoemake 1985).

    ``sin(s_0 w) / sin(w) * a + sin(s_1 w) / sin(w) * b``, where w is the angle between a and b and ``s_0 +
    s_1 = 1``; a and b keep their lengths. Vectors that point the same way, or that are zero, are
    interpolated on a line.

    Args:
        tensors: two of one shape.
        shares: that add up to one.
    """
    first, second = (_wide(tensor) for tensor in tensors)
    lengths = math.sqrt(_dot(first, first)) * math.sqrt(_dot(second, second))
    cosine = _dot(first, second) / lengths if lengths > 0 else 1.0
    if abs(cosine) > PARALLEL:
        return mean((first, second), shares)
    angle = math.acos(cosine)
    factors = [math.sin(share * angle) / math.sin(angle) for share in shares]
    return mean((first, second), factors)


def _dot(first: Tensor, second: Tensor) -> float:
    """The scalar product in float64, of a slice at a time, so that no tensor is held in float64."""
    slices = zip(first.flatten().split(SLICE), second.flatten().split(SLICE), strict=True)
    return math.fsum(float(a.double() @ b.double()) for a, b in slices)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
