"""Which CPUs and GPUs multiply bfloat16 in hardware, and the reason that is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from inbatch.device import native_bf16
from inbatch.device.native_bf16 import native_bfloat16, native_bfloat16_of


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"cpu_flags": {"avx512f", "avx512_bf16"}}, (True, "this CPU has AVX512-BF16")),
        ({"cpu_flags": {"avx512_bf16", "amx_bf16"}}, (True, "this CPU has AMX-BF16")),
        ({"cpu_flags": {"asimd", "bf16", "i8mm"}}, (True, "this CPU has Arm's BF16")),
        (
            {"cpu_flags": {"avx2", "avx512f"}},
            (False, "this CPU has none of AMX-BF16, AVX512-BF16, Arm's BF16"),
        ),
        ({"cpu_flags": set()}, (False, "the instructions of this CPU are unknown")),
        ({"capability": (9, 0)}, (True, "this GPU has compute capability 9.0")),
        ({"capability": (8, 0)}, (True, "this GPU has compute capability 8.0")),
        (
            {"capability": (7, 5)},
            (False, "this GPU has compute capability 7.5, and bf16 needs 8.0"),
        ),
    ],
)
def test_the_reason_is_named(facts: dict[str, object], expected: tuple[bool, str]) -> None:
    assert native_bfloat16_of(**facts) == expected  # type: ignore[arg-type]


def test_a_machine_without_information_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(native_bf16, "_CPU_INFO", tmp_path / "cpuinfo")
    assert native_bfloat16("cpu") == (False, "the instructions of this CPU are unknown")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu amx_bf16 avx\n")
    assert native_bfloat16("cpu") == (True, "this CPU has AMX-BF16")
