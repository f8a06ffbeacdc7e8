"""Loads the emulated devices, then torch and what tests import; for the process that they are forked from.

torch asks once, while it is imported, whether there is CUDA. So this module is imported before it.
"""

# ruff: noqa: E402
from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path

LIBRARY = "INBATCH_EMULATED_CUDA"  # environment variable with its path

_spec = importlib.util.find_spec("torch")
assert _spec is not None
assert _spec.origin is not None
for _name in ("libc10.so", "libtorch_cpu.so", "libtorch.so"):
    ctypes.CDLL(str(Path(_spec.origin).parent / "lib" / _name), mode=ctypes.RTLD_GLOBAL)
ctypes.CDLL(os.environ[LIBRARY])

import torch
import torch._inductor.utils  # looks for a real GPU

from helpers.emulated_cuda import flash, half_products, torch_cuda

torch.set_num_threads(1)
torch_cuda.install()
OPERATORS = (flash.install(), half_products.install())

import helpers.runs  # noqa: F401 - the rest is imported once for all tests
from inbatch.callbacks import step_log, summary

# Not the rate of the host, which is no GPU's, and takes time to measure.
for _module in (step_log, summary):
    _module.matmul_flop_per_s = lambda device, dtype: 1e15
