"""Rates of the device: products of matrices by precision, and memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch

from inbatch.device.capability import AMPERE
from inbatch.device.matmul_precision import allow_tf32, exact_products
from inbatch.device.native_bf16 import native_bfloat16
from inbatch.device.rates import copy_bytes_per_s, matmul_flop_per_s
from inbatch.doctor.result import Machine, Result, judged
from inbatch.gather import max_over_ranks, rank_and_world_size

#: bf16 operations a second without sparsity, by NVIDIA's data sheets; the first that matches.
DATA_SHEETS = {
    r"\bB200\b": 2250e12,
    r"\bGH200\b|\bH200\b": 989e12,
    r"\bH100 (PCIe|NVL)\b": 756e12,
    r"\bH100\b": 989e12,
    r"\bA100\b": 312e12,
    r"\bA30\b": 165e12,
    r"\bL40S\b": 362e12,
    r"\bL4\b": 121e12,
}
LEAST_SHARE = 0.4  # of the data sheet; large products reach 0.6 to 0.8
LEAST_OF_FASTEST = 0.7  # rank
LEAST_GAIN = 0.9  # of bf16 over float32, where it is in hardware


def products(machine: Machine) -> Iterator[Result]:
    """float32, TF32, bf16 and fp16, a quarter of a second each."""
    rates = measure_products(machine.device)
    problems = judge(machine, rates)
    for name, rate in rates.items():
        data = {"rates": {"matmul_flops": {name: rate}}}
        if rate is None:
            yield Result(f"products in {name}", "not on this device", None, data=data)
        else:
            yield judged(f"products in {name}", _shown(rate), problems.get(name, ""), data=data)


def measure_products(device: torch.device) -> dict[str, float | None]:
    """Operations a second by the precision of the factors; None for what the device does not have."""
    with exact_products():
        exact = matmul_flop_per_s(device, torch.float32)
    tf32 = None
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE:
        before = torch.get_float32_matmul_precision()
        allow_tf32()
        tf32 = matmul_flop_per_s(device, torch.float32)
        torch.set_float32_matmul_precision(before)
    halves = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    rates = {name: matmul_flop_per_s(device, dtype) for name, dtype in halves.items()}
    return {"float32": exact, "tf32": tf32, **rates}


def judge(machine: Machine, rates: Mapping[str, float | None]) -> dict[str, str]:
    """What is wrong with rates of this device, {precision: sentence}."""
    native, reason = native_bfloat16(machine.device.type)
    bf16, exact = rates["bfloat16"] or 0.0, rates["float32"] or 0.0
    sentence = slow_bfloat16(bf16, exact, reason) if native else ""
    if machine.device.type == "cuda":
        name = torch.cuda.get_device_name(machine.device)
        sentence = sentence or below_data_sheet(bf16, name)
        if rank_and_world_size()[1] > 1:
            (fastest,) = max_over_ranks([int(bf16)], machine.device)
            sentence = sentence or behind_fastest(bf16, fastest)
    return {"bfloat16": sentence}


def slow_bfloat16(bf16: float, exact: float, reason: str) -> str:
    """Say that bf16 gains nothing, although it is in hardware."""
    if bf16 >= LEAST_GAIN * exact:
        return ""
    return (
        f"products in bf16 reach {_shown(bf16)} and in float32 {_shown(exact)}, although {reason}: "
        "repeat it on an idle machine, or train with precision=fp32"
    )


def below_data_sheet(bf16: float, device_name: str) -> str:
    """Say that a GPU is far below what its kind reaches."""
    known = (peak for pattern, peak in DATA_SHEETS.items() if re.search(pattern, device_name))
    peak = None if "MIG" in device_name else next(known, None)
    if peak is None or bf16 >= LEAST_SHARE * peak:
        return ""
    return (
        f"products in bf16 reach {_shown(bf16)}, {bf16 / peak:.0%} of the data sheet of {device_name}: "
        "look at its clocks, power limit and other processes (nvidia-smi -q -d PERFORMANCE)"
    )


def behind_fastest(bf16: float, fastest: float) -> str:
    """Say that a rank would keep all others waiting."""
    if bf16 >= LEAST_OF_FASTEST * fastest:
        return ""
    return (
        f"products in bf16 reach {_shown(bf16)}, and {_shown(fastest)} on the fastest rank, which "
        "would wait for this one in each step: look at clocks, power limit and other processes"
    )


def memory_rate(machine: Machine) -> Iterator[Result]:
    """A copy within the device's memory."""
    rate = copy_bytes_per_s(machine.device)
    yield Result(
        "memory",
        f"{rate / 1e9:,.0f} GB/s, read and written",
        data={"rates": {"memory_bytes_per_s": rate}},
    )


def _shown(rate: float) -> str:
    return f"{rate / 1e12:,.1f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:,.0f} GFLOP/s"
