"""Products of 16-bit matrices with float32 sums on the emulated devices, of which the CPU has no kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from helpers import half_products


def install() -> torch.library.Library:
    """Give the devices the operators; they go with the object that is returned."""
    library = torch.library.Library("aten", "IMPL")
    for name, compute in half_products.OPERATORS.items():
        library.impl(name, partial(_on_host, f"aten::{name}", compute), "CUDA")
    return library


def _on_host(
    name: str,
    compute: Callable[..., Tensor],
    *factors: Tensor | torch.dtype,
    out: Tensor,
    **numbers: float,
) -> Tensor:
    devices = torch.ops.emulated_cuda
    places = {str(t.device) for t in (*factors, out) if isinstance(t, Tensor)}
    if len(places) > 1:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{' and '.join(sorted(places))}! (emulated, in {name})"
        )
    devices.count_kernel(name)
    views = [devices.host_view(f) if isinstance(f, Tensor) else f for f in factors]
    compute(*views, out=devices.host_view(out), **numbers)
    return out
