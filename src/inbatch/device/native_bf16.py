"""Whether a device multiplies bfloat16 matrices in hardware; otherwise bf16 is slower than float32."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import torch

from inbatch.device.capability import AMPERE

#: Instructions of CPUs that multiply bfloat16, as torch and /proc/cpuinfo call them; the fastest first.
CPU_INSTRUCTIONS = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16"}
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
        if capability < AMPERE:
            return False, f"this GPU has no native bfloat16 ({name})"
        return True, f"this GPU has native bfloat16 ({name})"
    found = [name for flag, name in CPU_INSTRUCTIONS.items() if flag in (cpu_flags or ())]
    if not found:
        return False, "this CPU has no native bfloat16"
    return True, f"this CPU has native bfloat16 ({found[0]})"


def native_bfloat16(device_type: str, *, devices: int = 1) -> tuple[bool, str]:
    """Ask the machine: `native_bfloat16_of` for its CPU, or for the least of its GPUs.

    Args:
        device_type: "cpu" or "cuda".
        devices: GPUs that are used, the first ones that this process sees.
    """
    if device_type == "cuda":
        seen = range(min(devices, torch.cuda.device_count()))
        return native_bfloat16_of(capability=min(map(torch.cuda.get_device_capability, seen)))
    if not torch.backends.mkldnn.is_available():  # what would use the instructions
        return False, "this torch has no oneDNN, which computes bfloat16 on a CPU"
    return native_bfloat16_of(cpu_flags=_cpu_flags())


def _cpu_flags() -> set[str]:
    """What torch finds; where it is too old to tell, the flags of the first core, if Linux says them."""
    find = getattr(torch.cpu, "get_capabilities", None)
    if find is not None:
        return {name for name, there in find().items() if there}
    text = _CPU_INFO.read_text() if _CPU_INFO.exists() else ""
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(found[1].split()) if found else set()
