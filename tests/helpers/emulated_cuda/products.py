"""Products of 16-bit matrices with a result in float32, which torch has on CUDA alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_NAMES = ("mm", "addmm", "bmm", "baddbmm")
_HALVES = (torch.float16, torch.bfloat16)


def install() -> torch.library.Library:
    """Give the devices the operators; they go with the object that is returned."""
    library = torch.library.Library("aten", "IMPL")
    for name in _NAMES:
        product = _on_host(name, getattr(torch, name))
        library.impl(f"{name}.dtype", product, "CUDA")
        library.impl(f"{name}.dtype_out", product, "CUDA")
    return library


def _on_host(name: str, multiply: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator that takes matrices, the dtype of the result, and factors; sums are in float32."""

    def product(*arguments: Any, out: Tensor | None = None, **factors: float) -> Tensor:
        *matrices, dtype = arguments
        _check(name, matrices, dtype, out)
        devices = torch.ops.emulated_cuda
        devices.count_kernel(f"aten::{name}")
        found = multiply(*(devices.host_view(m).float() for m in matrices), **factors)
        if out is None:
            out = torch.empty(found.shape, dtype=dtype, device=matrices[0].device)
        devices.host_view(out).copy_(found)
        return out

    return product


def _check(name: str, matrices: Sequence[Tensor], dtype: torch.dtype, out: Tensor | None) -> None:
    devices = {tensor.device for tensor in (*matrices, *([] if out is None else [out]))}
    if len(devices) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(map(str, devices)))}! (emulated, in {name})"
        )
    left, right = matrices[-2:]
    if left.dtype != right.dtype or left.dtype not in _HALVES or dtype != torch.float32:
        raise RuntimeError(f"out_dtype of {name} is float32, for 16-bit matrices (emulated)")
