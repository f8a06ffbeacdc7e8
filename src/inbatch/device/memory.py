"""Memory of a device: how much is free, what to do where it runs out, and giving back what nothing uses."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

_GROUP = Path("/sys/fs/cgroup")

# Libraries that allocate by themselves (cuBLAS its workspace, cuDNN, the driver) say so in their own words.
_IN_OTHER_WORDS = ("_STATUS_ALLOC_FAILED", "CUDA error: out of memory")


def free_bytes(device: torch.device) -> float:
    """Bytes that this process can still take.

    Of a GPU: what the driver has free, whichever processes hold the rest, and what torch holds for this
    process without using it. Elsewhere: what the machine and this process's control group leave free.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + unused)
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(
        1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")
    )
    limit = group_limit()
    if limit is not None:
        available = min(available, limit - float((_GROUP / "memory.current").read_text()))
    return available


def group_limit() -> int | None:
    """Bytes that this process's control group may take; None without a limit."""
    limit = _GROUP / "memory.max"
    text = limit.read_text().strip() if limit.exists() else ""
    return int(text) if text.isdigit() else None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that a device's memory does not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in _IN_OTHER_WORDS
    )


def unless_out_of_memory(compute: Callable[[], T]) -> T | RuntimeError:
    """Return the result of `compute`, or the error by which it has run out of memory.

    By then the memory of the failed attempt is free: the error comes without its traceback, whose frames
    would hold the attempt's tensors.
    """
    try:
        return compute()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        short = error.with_traceback(None)
        short.__context__ = None
    free_memory()
    return short


def retried(compute: Callable[[], T], *remedies: Callable[[], bool]) -> T:
    """Return the result of `compute`, done again after a remedy as often as it runs out of memory.

    Args:
        compute: what needs memory; it may be called any number of times.
        remedies: in the order in which they are asked; each makes memory free, or returns False where it
            has nothing left to give.

    Raises:
        RuntimeError: the last error of `compute`, once no remedy is left.
    """
    while True:
        found = unless_out_of_memory(compute)
        if not isinstance(found, RuntimeError):
            return found
        if not any(remedy() for remedy in remedies):
            raise found


def make_room(num_bytes: int, device: torch.device, *remedies: Callable[[], bool]) -> None:
    """Make sure that so many bytes are free, for what cannot be done again once it has begun.

    Such as a collective: a rank that ran out of memory halfway would leave the others waiting.

    Args:
        num_bytes: what will be allocated.
        device: where.
        remedies: see `retried`.
    """
    retried(lambda: torch.empty(num_bytes, dtype=torch.uint8, device=device), *remedies)


def free_memory() -> None:
    """Collect garbage, and give cached blocks back to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
