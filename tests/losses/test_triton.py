"""The Triton kernels: in the interpreter, compiled for GPUs that are not there, and on a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from test_losses_streaming import BLOCKS
from torch import Tensor

from helpers.losses_oracle import leaves, random_columns
from inbatch.losses.filters import guide_filter
from inbatch.losses.softmax.cross_entropy import streamed_cross_entropy
from inbatch.losses.softmax.panels import GuideFilter
from inbatch.losses.softmax.walk import StreamStats

pytest.importorskip("triton")

HERE = Path(__file__).parent
REGISTERS = 65536  # of a multiprocessor, of all devices from capability 8.0
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_in_the_interpreter() -> None:
    """Triton decides when its kernels are imported, hence the process."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--noconftest", str(HERE / "triton_interpreted.py")],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


def test_a_cpu_takes_the_tiled_form_by_default_and_refuses_kernels() -> None:
    columns = [column.float() for column in random_columns(2, 4, 6)]
    options: dict[str, Any] = {"rows": slice(0, 4), "temperature": 0.1}
    value, _ = streamed_cross_entropy(columns, BLOCKS["one"], **options)
    tiled, _ = streamed_cross_entropy(columns, BLOCKS["one"], implementation="tiled", **options)
    assert torch.equal(value, tiled)
    with pytest.raises(ValueError, match="run on CUDA, and columns are on cpu"):
        streamed_cross_entropy(columns, BLOCKS["one"], implementation="triton", **options)


class Build(NamedTuple):
    """A kernel as a run would launch it, for a GPU that is not there."""

    kernel: str
    capability: int
    own: str = "positive"
    hardened: str = "others"
    left_out: tuple[str, ...] = ()  # beginnings of the names of arguments that are None
    weights: str = "bf16"
    spared: bool = False


PLAIN = ("guide", "threshold", "own_ids", "ids", "candidate")
BUILDS = [
    *(Build(kernel, cap) for kernel in ("reduce", "weigh") for cap in (80, 89, 90, 100)),
    Build("reduce", 90, "masked", "none", ("own_ids", "ids")),
    Build("reduce", 90, "plain", "all", PLAIN),
    Build("reduce", 90, "plain", "none", ("guide", "own_ids", "ids", "candidate"), spared=True),
    Build("weigh", 90, left_out=PLAIN, weights="fp32"),
    Build("weigh", 80, weights="fp16"),
]


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_compiles_for_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, build: Build) -> None:
    """Down to machine code: few registers, none spilled, 16 bytes at a time."""
    from triton import compile as triton_compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from inbatch.losses.softmax import triton_kernels, triton_panels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    kernel = getattr(triton_kernels, f"{build.kernel}_kernel")
    names = kernel.arg_names
    constants: dict[str, Any] = {"OWN": build.own, "HARDENED": build.hardened, "PAIR_IDS": True}
    constants["SPARED"] = build.spared or build.own != "plain"
    constants["BLOCK"] = triton_panels.BLOCK
    constants |= {name: None for name in names if name.startswith(build.left_out)}
    constants = {name: value for name, value in constants.items() if name in names}
    types = {"harden_factor": "fp32", "removed_ptr": "*i32", "weights_ptr": f"*{build.weights}"}
    types |= dict.fromkeys(constants, "constexpr")
    signature = {n: types.get(n, "*fp32" if n.endswith("_ptr") else "i32") for n in names}
    aligned = {
        (k,): [["tt.divisibility", 16]]
        for k, name in enumerate(names)
        if signature[name][0] == "*" or name in ("width", "num_candidates")
    }
    compiled = triton_compile(
        ASTSource(kernel, signature, constants, aligned),
        target=GPUTarget("cuda", build.capability, 32),
        options={"num_warps": triton_panels.NUM_WARPS, "enable_fp_fusion": True},
    )
    registers, spilled = registers_of(compiled.asm["ptx"], build.capability, tmp_path)
    assert spilled == 0
    threads = 32 * triton_panels.NUM_WARPS
    assert REGISTERS // (registers * threads) >= triton_panels.PROGRAMS_PER_MULTIPROCESSOR
    assert registers <= 80
    assert compiled.metadata.shared <= 1024
    for access in ("ld.global", "st.global"):
        assert re.search(rf"{access}\S*\.v4", compiled.asm["ptx"]), access


def registers_of(ptx: str, capability: int, folder: Path) -> tuple[int, int]:
    """Registers of a thread and bytes that are spilled, as the assembler of triton's wheel says."""
    from triton.backends import nvidia

    newer = capability >= 90
    assembler = Path(nvidia.__file__).parent / "bin" / ("ptxas-blackwell" if newer else "ptxas")
    source = folder / "kernel.ptx"
    source.write_text(ptx)
    command = [assembler, "-v", f"--gpu-name=sm_{capability}{'a' if newer else ''}", source]
    told = subprocess.run(
        [*command, "-o", folder / "kernel.o"], check=True, capture_output=True, text=True
    ).stderr
    registers = re.search(r"Used (\d+) registers", told)
    spilled = re.search(r"(\d+) bytes spill stores", told)
    assert registers is not None
    assert spilled is not None
    return int(registers[1]), int(spilled[1])


class TestOnGpu:
    pytestmark = needs_gpu

    @pytest.fixture(autouse=True)
    def precision(self) -> Iterator[None]:
        before = torch.get_float32_matmul_precision()
        yield
        torch.set_float32_matmul_precision(before)

    def run(
        self, implementation: str, columns: list[Tensor], name: str, **options: Any
    ) -> tuple[Tensor, list[Tensor], StreamStats]:
        mine = leaves(columns)
        value, stats = streamed_cross_entropy(
            mine, BLOCKS[name], implementation=implementation, hardness_strength=3.0, **options
        )
        grads = torch.autograd.grad(value, mine, allow_unused=True, materialize_grads=True)
        return value.detach(), list(grads), stats

    def example(self, num_rows: int, dim: int) -> tuple[list[Tensor], dict[str, Any]]:
        columns = [c.float().cuda() for c in random_columns(3, num_rows, dim)]
        theirs = [c.float().cuda() for c in random_columns(3, num_rows, dim // 2, seed=7)]
        guide = guide_filter(theirs, margin_strategy="absolute", margin=0.0)
        rows = slice(num_rows // 5, num_rows - 3)
        return columns, {"rows": rows, "temperature": 0.05, "guide": guide}

    @pytest.mark.parametrize("name", BLOCKS)
    @pytest.mark.parametrize(("num_rows", "dim"), [(65, 48), (1000, 100), (2048, 768), (777, 4096)])
    def test_equals_tiled(self, num_rows: int, dim: int, name: str) -> None:
        torch.set_float32_matmul_precision("highest")
        columns, options = self.example(num_rows, dim)
        value, grads, stats = self.run("triton", columns, name, **options)
        expected, expected_grads, reference = self.run("tiled", columns, name, **options)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        for mine, theirs in zip(grads, expected_grads):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=3e-5 * float(theirs.abs().max()))
        torch.testing.assert_close(stats.hardest, reference.hardest, rtol=1e-5, atol=1e-6)
        assert torch.equal(stats.filtered, reference.filtered)

    def test_tf32_is_near_and_the_guide_stays_exact(self) -> None:
        columns, options = self.example(1000, 768)
        torch.set_float32_matmul_precision("highest")
        exact, exact_grads, reference = self.run("tiled", columns, "gist", **options)
        torch.set_float32_matmul_precision("high")
        value, grads, stats = self.run("triton", columns, "gist", **options)
        torch.testing.assert_close(value, exact, rtol=1e-2, atol=1e-2)
        for mine, theirs in zip(grads, exact_grads):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-2 * float(theirs.abs().max()))
        assert torch.equal(stats.filtered, reference.filtered)

    def test_the_kernels_repeat_bit_by_bit(self) -> None:
        columns, options = self.example(500, 96)
        once, once_grads, _ = self.run("triton", columns, "gist", **options)
        again, again_grads, _ = self.run("triton", columns, "gist", **options)
        assert torch.equal(once, again)
        assert all(map(torch.equal, once_grads, again_grads))

    @pytest.mark.parametrize("implementation", ["tiled", "triton"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_16_bits_are_near_float64(self, dtype: torch.dtype, implementation: str) -> None:
        columns = [c.to(dtype).cuda() for c in random_columns(3, 777, 384)]
        theirs = [c.half().cuda() for c in random_columns(3, 777, 96, seed=7)]
        options: dict[str, Any] = {"rows": slice(100, 700), "temperature": 0.05}

        def guide(columns: list[Tensor]) -> GuideFilter:
            return guide_filter(columns, margin_strategy="absolute", margin=0.0)

        value, grads, stats = self.run(
            implementation, columns, "hardened", guide=guide(theirs), **options
        )
        exact, exact_grads, reference = self.run(
            "tiled",
            [c.double() for c in columns],
            "hardened",
            guide=guide([c.double() for c in theirs]),
            **options,
        )
        torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(stats.positive.double(), reference.positive, rtol=0, atol=1e-6)
        for mine, wanted in zip(grads, exact_grads):
            error = float((mine.double() - wanted).norm() / wanted.norm())
            assert error < torch.finfo(dtype).eps
