"""Products of 16-bit matrices in float32 on a CPU, where torch has none, as a GPU computes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from inbatch.losses.softmax import products


@contextmanager
def matrix_units(device: str = "cpu") -> Iterator[None]:
    """Inside, losses multiply 16-bit embeddings as they are, as on a GPU."""
    before = set(products.MATRIX_UNITS)
    library = install(device)
    products.MATRIX_UNITS.add(device)
    try:
        yield
    finally:
        products.MATRIX_UNITS.intersection_update(before)
        library._destroy()


def install(device: str = "cpu") -> torch.library.Library:
    """Give a device torch's operators of 16-bit factors and float32 sums; they go with what is returned."""
    library = torch.library.Library("aten", "IMPL")
    for name, compute in OPERATORS.items():
        library.impl(name, compute, device.upper())
    return library


def _mm(left: Tensor, right: Tensor, out_dtype: torch.dtype, *, out: Tensor) -> Tensor:
    _check(left, right, out_dtype, out)
    return out.copy_(left.float() @ right.float())


def _addmm(
    target: Tensor,
    left: Tensor,
    right: Tensor,
    out_dtype: torch.dtype,
    *,
    beta: float = 1,
    alpha: float = 1,
    out: Tensor,
) -> Tensor:
    _check(left, right, out_dtype, out)
    assert target.dtype == out_dtype
    return out.copy_(target * beta + (left.float() @ right.float()) * alpha)


def _check(left: Tensor, right: Tensor, out_dtype: torch.dtype, out: Tensor) -> None:
    """What the GPU's operators refuse."""
    factors = {left.dtype, right.dtype}
    if len(factors) != 1 or not factors <= {torch.bfloat16, torch.float16}:
        raise RuntimeError("takes 16-bit matrices of one type")
    if not out_dtype == out.dtype == torch.float32:
        raise RuntimeError("has results in float32")


OPERATORS = {"mm.dtype_out": _mm, "addmm.dtype_out": _addmm}
