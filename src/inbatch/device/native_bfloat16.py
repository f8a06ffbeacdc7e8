"""Whether a device computes in bfloat16 itself. Elsewhere torch emulates it, more slowly than float32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_CAPABILITY = (8, 0)  # compute capability of the first GPUs that multiply bfloat16
#: Instructions of x86 that multiply bfloat16, by the names of torch and of Linux alike.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def why_not_native(accelerator: str, *, devices: int = 1) -> str | None:
    """Why bfloat16 is not native here, to follow "bfloat16:"; None where it is.

    Args:
        accelerator: "cpu" or "cuda".
        devices: GPUs of this machine that are used, the first ones; all of them must have it.
    """
    if accelerator == "cuda":
        count = min(devices, torch.cuda.device_count())
        lowest = min(torch.cuda.get_device_capability(number) for number in range(count))
        name = ".".join(map(str, lowest))
        problem = f"a GPU of compute capability {name} has no native bfloat16"
        return None if lowest >= _CAPABILITY else problem
    return None if cpu_multiplies_bfloat16() else "this CPU has no native bfloat16"


def cpu_multiplies_bfloat16(
    capabilities: Mapping[str, Any] | None = None, *, cpuinfo: Path = Path("/proc/cpuinfo")
) -> bool:
    """Whether the CPU has instructions for it, and torch the library that uses them.

    Args:
        capabilities: of the CPU, as torch names them; by default what torch finds, and where it does not
            tell, what Linux says.
        cpuinfo: where Linux says it.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    if capabilities is None:
        find = getattr(
            torch.cpu, "get_capabilities", None
        )  # absent from the oldest torch that we take
        capabilities = find() if find is not None else _linux_flags(cpuinfo)
    return any(capabilities.get(name, False) for name in _INSTRUCTIONS)


def _linux_flags(cpuinfo: Path) -> dict[str, bool]:
    """The flags of the first core; none elsewhere."""
    if not cpuinfo.exists():
        return {}
    lines = cpuinfo.read_text().splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return dict.fromkeys(flags.partition(":")[2].split(), True)
