"""How fast a device multiplies matrices and moves memory, measured in a fraction of a second each."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from inbatch.device.cpu_products import product

_LARGEST = {"cuda": 8192, "cpu": 2048}  # side of a matrix
_COPIED_BYTES = {"cuda": 2**30, "cpu": 2**27}  # far beyond the caches
_MOST_OF_MEMORY = 8  # a copy takes a part of the free memory of a GPU


def matmul_flop_per_s(device: torch.device, dtype: torch.dtype, *, budget_s: float = 0.2) -> float:
    """The highest rate of square products, in operations a second.

    Sides double from 256 on as long as eight times the arithmetic is likely to end in time, so that slow
    products (as of float16 on many CPUs) end in time as well; the last size is timed up to five times.

    Args:
        device: where it is multiplied.
        dtype: of the factors.
        budget_s: seconds of all products. On a slow device the first two take longer, and the drawing of
            factors and what the first product of a size loads are not foreseen.
    """
    draws = torch.Generator(device).manual_seed(0)  # leaves the state of the process alone
    best, size, left_s = 0.0, 256, budget_s
    while True:
        # Not ones: a GPU multiplies constants at a higher clock.
        left, right = (
            torch.randn(size, size, device=device, generator=draws).to(dtype) for _ in range(2)
        )
        _seconds(device, product, left, right)  # the first of a size may load a library
        seconds = _seconds(device, product, left, right)
        best, left_s = max(best, 2.0 * size**3 / seconds), left_s - 2 * seconds
        if size == _LARGEST[_kind(device)] or 2 * 8 * seconds > left_s:
            break
        size *= 2
    for _ in range(4):
        if seconds > left_s:
            break
        seconds = _seconds(device, product, left, right)
        best, left_s = max(best, 2.0 * size**3 / seconds), left_s - seconds
    return best


def copy_bytes_per_s(device: torch.device, *, budget_s: float = 0.25) -> float:
    """The highest rate of a copy within the device, in bytes read and written a second."""
    size = _COPIED_BYTES[_kind(device)]
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // _MOST_OF_MEMORY)
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)  # touches its pages
    best, deadline = 0.0, time.perf_counter() + budget_s
    while time.perf_counter() < deadline:
        seconds = _seconds(device, target.copy_, source)
        best = max(best, 2.0 * source.nbytes / seconds)
    return best


def _kind(device: torch.device) -> str:
    return "cpu" if device.type == "cpu" else "cuda"


def _seconds(device: torch.device, work: Callable[..., object], *on: torch.Tensor) -> float:
    """Seconds of one call, its work on the device included."""
    _finish(device)
    start = time.perf_counter()
    work(*on)
    _finish(device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
