"""Products of float32 matrices on a CPU, by oneDNN where that has the wider instructions.

torch leaves them to MKL, which takes AVX2 on processors that are not Intel's, whatever they have. oneDNN
takes AVX-512: 250 instead of 110 GFLOP/s on a core of an AMD EPYC. Both sum in float32.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from inbatch.compat import onednn_product

_SMALLEST = 2**20  # multiplications below which a call of oneDNN costs more than it saves
_CPU_INFO = Path("/proc/cpuinfo")


@cache
def onednn_is_faster() -> bool:
    """True on a processor with AVX-512 that is not Intel's, where torch has both libraries."""
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return both and wide and _CPU_INFO.exists() and "GenuineIntel" not in _CPU_INFO.read_text()


def onednn_takes(left_MK: Tensor, right_KN: Tensor) -> bool:
    """Whether oneDNN is the faster for a product; the same for all products of these sizes."""
    return (
        left_MK.device.type == "cpu"
        and left_MK.dtype == right_KN.dtype == torch.float32
        and left_MK.shape[0] * right_KN.numel() >= _SMALLEST
        and onednn_is_faster()
    )


def product(left_MK: Tensor, right_KN: Tensor) -> Tensor:
    """``left @ right`` by the faster library, on any device."""
    if onednn_takes(left_MK, right_KN):
        return onednn_product(left_MK, right_KN.T)
    return torch.mm(left_MK, right_KN)


def product_in(
    memory_MN: Tensor, left_MK: Tensor, right_KN: Tensor, *, alpha: float = 1.0
) -> Tensor:
    """``alpha * left @ right``, in the given memory; by oneDNN, which takes none, in memory of its own."""
    if onednn_takes(left_MK, right_KN):
        return onednn_product(left_MK if alpha == 1 else left_MK * alpha, right_KN.T)
    return torch.addmm(memory_MN, left_MK, right_KN, beta=0, alpha=alpha, out=memory_MN)


def add_product(out_MN: Tensor, left_MK: Tensor, right_KN: Tensor) -> None:
    """Add ``left @ right``."""
    if onednn_takes(left_MK, right_KN):
        out_MN += onednn_product(left_MK, right_KN.T)
    else:
        out_MN.addmm_(left_MK, right_KN)
