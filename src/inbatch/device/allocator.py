"""How this process allocates memory."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, see malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have glibc reuse memory that tensors have freed, instead of giving it back to the system.

    A training step frees and allocates the same gigabytes again and again. By default large blocks go
    back at once, and the system clears each page when it is next touched: some percent of a step.
    The process stays as large as its largest moment.

    Returns:
        Whether this is glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_THRESHOLD, _NEVER) and libc.mallopt(_TRIM_THRESHOLD, _NEVER))


def grow_gpu_segments() -> None:
    """Have torch grow its blocks of GPU memory in place; for before the first of them.

    Chunks differ in their tokens, so blocks of fixed sizes would leave gaps that nothing fits into beside
    the graphs that are kept. What the user has set stays.
    """
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the older name
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
