"""Matrix products whose result decides something, such as which text is a false negative."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_BACKENDS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


@contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 are computed in float32 inside, although training may have allowed less."""
    before = [backend.fp32_precision for backend in _BACKENDS]
    for backend in _BACKENDS:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(_BACKENDS, before):
            backend.fp32_precision = precision
