"""Which CPUs and GPUs multiply bfloat16 in hardware, and the reason that is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from inbatch.device import native_bf16
from inbatch.device.native_bf16 import native_bfloat16, native_bfloat16_of

NONE = (False, "this CPU has no native bfloat16")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"cpu_flags": {"avx512f", "avx512_bf16"}}, (True, "this CPU has native bfloat16 (AVX512-BF16)")),
        ({"cpu_flags": {"avx512_bf16", "amx_bf16"}}, (True, "this CPU has native bfloat16 (AMX-BF16)")),
        ({"cpu_flags": {"avx2", "avx512f"}}, NONE),
        ({"cpu_flags": set()}, NONE),
        ({"capability": (9, 0)}, (True, "this GPU has native bfloat16 (compute capability 9.0)")),
        ({"capability": (8, 0)}, (True, "this GPU has native bfloat16 (compute capability 8.0)")),
        ({"capability": (7, 5)}, (False, "this GPU has no native bfloat16 (compute capability 7.5)")),
    ],
)  # fmt: skip
def test_the_reason_is_named(facts: dict[str, Any], expected: tuple[bool, str]) -> None:
    assert native_bfloat16_of(**facts) == expected


@pytest.mark.parametrize("by_torch", [True, False])
def test_the_machine_is_asked(
    by_torch: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def put(flag: str) -> None:
        if by_torch:
            facts = {"architecture": "x86_64", "amx_bf16": False, flag: True}
            monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: facts, raising=False)
        else:
            (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flag} avx\n")

    if not by_torch:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
        monkeypatch.setattr(native_bf16, "_CPU_INFO", tmp_path / "cpuinfo")
        assert native_bfloat16("cpu") == NONE
    put("avx512_vnni")
    assert native_bfloat16("cpu") == NONE
    put("amx_bf16")
    assert native_bfloat16("cpu") == (True, "this CPU has native bfloat16 (AMX-BF16)")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not native_bfloat16("cpu")[0]


def test_torch_and_linux_agree_about_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    by_torch = native_bfloat16("cpu")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert native_bfloat16("cpu") == by_torch


@pytest.mark.parametrize(
    ("capabilities", "devices", "native"),
    [
        ([(9, 0), (8, 0)], 2, True),
        ([(9, 0), (7, 5)], 1, True),
        ([(9, 0), (7, 5)], 2, False),
        ([(10, 0)], 4, True),  # a task of srun sees its own GPU alone
    ],
)
def test_every_gpu_that_is_used_must_have_it(
    capabilities: list[tuple[int, int]],
    devices: int,
    native: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    assert native_bfloat16("cuda", devices=devices)[0] is native
