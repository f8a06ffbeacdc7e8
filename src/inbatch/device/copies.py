"""Copies to a GPU that the host does not wait for."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy to a device; from the CPU to a GPU through page-locked memory, so that nothing waits.

    torch keeps that memory until the copy has ended.
    """
    crosses = torch.device(device).type == "cuda" and tensor.device.type == "cpu"
    return (tensor.pin_memory() if crosses else tensor).to(device, non_blocking=True)
