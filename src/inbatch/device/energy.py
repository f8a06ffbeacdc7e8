"""The energy that a GPU has used, by its own counter."""

from __future__ import annotations

from importlib.util import find_spec

import torch


def used_joules(device: torch.device) -> float | None:
    """Energy that a GPU has used since its driver was loaded, in joules; None where nothing tells it.

    NVML counts it in GPUs from Volta on, for the whole GPU: all that runs there, and idle time. It needs the
    package nvidia-ml-py. A part of a GPU (MIG) has no counter, nor has a CPU one that any user may read.
    """
    if device.type != "cuda" or find_spec("pynvml") is None:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000.0
    except (pynvml.NVMLError, AttributeError, OSError):
        return None
