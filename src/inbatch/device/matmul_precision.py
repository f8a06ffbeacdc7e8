"""In what precision float32 matrices are multiplied, on a GPU and by oneDNN on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_MKLDNN: Any = torch.backends.mkldnn  # its matmul is made at run time
_BACKENDS = (torch.backends.cuda.matmul, _MKLDNN.matmul)
_ROUNDINGS = {"tf32": 2.0**-11, "bf16": 2.0**-9}


def allow_tf32() -> None:
    """Round the factors of products on a GPU to TF32 (10 bits); sums stay in float32."""
    # Not `backends.cuda.matmul.fp32_precision`: after it, torch.get_float32_matmul_precision() raises,
    # which Lightning calls when it sets up a GPU.
    torch.set_float32_matmul_precision("high")


def factor_rounding(dtype: torch.dtype) -> float:
    """Largest relative error of a factor of products of this type; 0 where none is rounded."""
    if dtype != torch.float32:
        return 0.0
    return max(_ROUNDINGS.get(backend.fp32_precision, 0.0) for backend in _BACKENDS)


@contextmanager
def exact_products() -> Iterator[None]:
    """Inside, float32 products are exact, whatever training allows: TF32, bfloat16 on a CPU, or autocast.

    They decide, say, what is a false negative.
    """
    before = [backend.fp32_precision for backend in _BACKENDS]
    for backend in _BACKENDS:
        backend.fp32_precision = "ieee"
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        for backend, precision in zip(_BACKENDS, before):
            backend.fp32_precision = precision
