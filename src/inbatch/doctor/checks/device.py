"""The device of each rank: what it is, how it computes bf16, and its memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from inbatch.device.memory import free_bytes, group_limit
from inbatch.device.native_bf16 import native_bfloat16
from inbatch.doctor.checks.versions import driver_version
from inbatch.doctor.result import Machine, Result, judged

GIB = 2**30
_FREE_SHARE = 0.8  # of a GPU's memory that is free before a run, or another process is on it
_SAME = "give all ranks the same kind of device"


def device(machine: Machine) -> Iterator[Result]:
    """Which device it is, and whether torch could use a better one."""
    driver = driver_version()
    if machine.device.type == "cuda":
        name, count = torch.cuda.get_device_name(machine.device), torch.cuda.device_count()
        value = f"{name}, 1 of {count}" if count > 1 else name
        sentence = too_few_gpus(count, machine.ranks_here)
    else:
        name, count, sentence = cpu_name(), 1, ""
        value = f"{name}, {cores()} cores"
        if not machine.asked:
            sentence = unused_gpu(driver, torch.version.cuda)
    about = {"type": machine.device.type, "name": name, "count": count, "cores": cores()}
    yield judged("device", value, sentence, data={"device": about}, same=_SAME)
    threads = torch.get_num_threads()
    yield Result("threads", f"{threads} of {cores()} cores", data={"device": {"threads": threads}})


def unused_gpu(driver: str | None, built_for: str | None) -> str:
    """Say why torch finds no GPU where there is a driver for one.

    Args:
        driver: version of the NVIDIA driver; None without one.
        built_for: CUDA version that torch is built for; None for a build without CUDA.
    """
    if driver is None:
        return ""
    if built_for is None:
        return (
            f"this node has an NVIDIA driver ({driver}), and this torch is built for CPUs only: "
            "install torch for CUDA, or set device=cpu"
        )
    return (
        f"torch finds no GPU with driver {driver} and CUDA {built_for}: see nvidia-smi and "
        "CUDA_VISIBLE_DEVICES, install a newer driver, or set device=cpu"
    )


def too_few_gpus(visible: int, ranks_here: int) -> str:
    """Say that ranks of a node share GPUs."""
    if ranks_here <= visible:
        return ""
    return (
        f"{ranks_here} ranks run on this node and each sees {visible} GPUs: start as many ranks as "
        "GPUs, and leave --gpus-per-task and --gpu-bind out, so that each rank sees all of them"
    )


def bfloat16(machine: Machine) -> Iterator[Result]:
    """Whether bf16 is computed in hardware; without, precision=bf16 only saves memory."""
    native, reason = native_bfloat16(machine.device.type)
    data = {"device": {"native_bf16": native, "native_bf16_reason": reason}}
    value = f"{'yes' if native else 'no'}: {reason}"
    yield Result("bf16 in hardware", value, data=data, same=_SAME)


def memory(machine: Machine) -> Iterator[Result]:
    """Free and total memory of the device."""
    if machine.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(machine.device)
        sentence = taken_memory(free, total)
    else:
        free, total, sentence = int(free_bytes(machine.device)), total_memory(), ""
    value = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    data = {"memory_bytes": total, "memory_free_bytes": free}
    yield judged("memory", value, sentence, data=data)


def taken_memory(free: int, total: int) -> str:
    """Say that another process is on a GPU."""
    if free >= _FREE_SHARE * total:
        return ""
    return (
        f"only {free / GIB:.1f} of {total / GIB:.1f} GiB of this GPU are free: another process holds "
        "the rest, which nvidia-smi names"
    )


def total_memory() -> int:
    """Memory of this node, or of the control group of this process where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = group_limit()
    return total if limit is None else min(total, limit)


def cores() -> int:
    """Cores that this process may use."""
    bound = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(bound(0)) if bound else os.cpu_count() or 1


def cpu_name() -> str:
    """As the system calls it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.exists() else None
    return found[1] if found else os.uname().machine
