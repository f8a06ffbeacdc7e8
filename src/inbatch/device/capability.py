"""What devices there are, and compute capabilities of GPUs."""

from __future__ import annotations

import torch

#: Of the first GPUs (Ampere) with tensor cores for bfloat16 and TF32, for which flash attention and the
#: Triton kernels are made.
AMPERE = (8, 0)


def default_accelerator() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
