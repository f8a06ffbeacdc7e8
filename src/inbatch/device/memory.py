"""Memory of a device: how much is free, and giving back what nothing uses."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Literal

import torch


def available_bytes(device: Literal["cpu", "cuda"]) -> float:
    """Total memory of a GPU, or what the machine and this process's control group leave free."""
    if device == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory)
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, float(limit.read_text()) - float(used.read_text()))
    return free


def free_memory() -> None:
    """Collect garbage, and give cached blocks back to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
