"""Whether a device multiplies bfloat16 matrices in hardware; otherwise bf16 is slower than float32."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import torch

#: Instructions of CPUs that multiply bfloat16, by their names in /proc/cpuinfo, the fastest first.
CPU_INSTRUCTIONS = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16", "bf16": "Arm's BF16"}
CUDA_CAPABILITY = (8, 0)  # of the first GPUs with tensor cores for bfloat16 (Ampere)
_CPU_INFO = Path("/proc/cpuinfo")


def native_bfloat16_of(
    *, cpu_flags: Collection[str] | None = None, capability: tuple[int, int] | None = None
) -> tuple[bool, str]:
    """Decide from what a machine says about itself, and name the reason.

    Args:
        cpu_flags: instruction sets of a CPU, by their names in /proc/cpuinfo; empty where unknown.
        capability: compute capability of a GPU, in place of `cpu_flags`.
    """
    if capability is not None:
        name = f"compute capability {capability[0]}.{capability[1]}"
        least = f"{CUDA_CAPABILITY[0]}.{CUDA_CAPABILITY[1]}"
        if capability < CUDA_CAPABILITY:
            return False, f"this GPU has {name}, and bf16 needs {least}"
        return True, f"this GPU has {name}"
    if not cpu_flags:
        return False, "the instructions of this CPU are unknown"
    found = [name for flag, name in CPU_INSTRUCTIONS.items() if flag in cpu_flags]
    if not found:
        return False, f"this CPU has none of {', '.join(CPU_INSTRUCTIONS.values())}"
    return True, f"this CPU has {found[0]}"


def native_bfloat16(device_type: str) -> tuple[bool, str]:
    """Ask the machine: `native_bfloat16_of` for its CPU, or for the current GPU.

    Args:
        device_type: "cpu" or "cuda".
    """
    if device_type == "cuda":
        return native_bfloat16_of(capability=torch.cuda.get_device_capability())
    return native_bfloat16_of(cpu_flags=_cpu_flags())


def _cpu_flags() -> set[str]:
    """Flags of the first core; none where the system has no /proc/cpuinfo."""
    text = _CPU_INFO.read_text() if _CPU_INFO.exists() else ""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(found[1].split()) if found else set()
