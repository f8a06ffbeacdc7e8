"""The Triton kernels: in the interpreter, compiled for GPUs that are not there, and on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_losses_streaming import BLOCKS, example_guide
from torch import Tensor

from helpers.losses_oracle import leaves, random_columns
from inbatch.losses.gist import guide_filter
from inbatch.losses.softmax.cross_entropy import streamed_cross_entropy
from inbatch.losses.softmax.panels import Block
from inbatch.losses.softmax.walk import SoftmaxSpec, StreamStats

pytest.importorskip("triton")

HERE = Path(__file__).parent
SMALLEST_SHARED_MEMORY = 99 * 1024  # that a program can have, of all devices from capability 8.0
needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_in_the_interpreter() -> None:
    """Triton decides when its kernels are imported, hence the process."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", str(HERE / "triton_interpreted.py")],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


def test_the_tiled_form_is_the_default_and_a_cpu_refuses_kernels() -> None:
    columns = [column.float() for column in random_columns(2, 4, 6)]
    options: dict[str, Any] = {"rows": slice(0, 4), "temperature": 0.1}
    value, _ = streamed_cross_entropy(columns, BLOCKS["one"], **options)
    tiled, _ = streamed_cross_entropy(columns, BLOCKS["one"], implementation="tiled", **options)
    assert torch.equal(value, tiled)
    with pytest.raises(ValueError, match="run on CUDA, and columns are on cpu"):
        streamed_cross_entropy(columns, BLOCKS["one"], implementation="triton", **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "block", "guided", "precision", "capability"),
    [
        ("reduce_kernel", Block(0, 1, "positive", "others"), True, "ieee", 80),
        ("reduce_kernel", Block(0, 0, "masked"), False, "tf32", 90),
        ("weights_kernel", Block(0, 1, "positive", "others"), True, "tf32", 90),
        ("weights_kernel", Block(0, 2, "plain", "own"), False, "ieee", 80),
    ],
)
def test_compiles_for_gpus(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    block: Block,
    guided: bool,
    precision: str,
    capability: int,
) -> None:
    """Down to machine code, within the shared memory that there is."""
    from triton import compile as triton_compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from inbatch.losses.softmax import triton_kernels, triton_loss

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    spec = SoftmaxSpec(
        (block,), slice(0, 9), 0.1, True, 3.0, example_guide() if guided else None, None, None
    )
    plan = triton_loss._Launch(spec, precision, triton_loss.TILING)
    options = triton_loss._options(plan, block, [torch.empty(0, 768)])
    kernel = getattr(triton_kernels, name)
    constants = {key: value for key, value in options.items() if key.isupper()}
    if not guided:
        constants |= dict.fromkeys(
            ("guide_rows_ptr", "guide_candidates_ptr", "threshold_ptr"), None
        )
    types = {"removed_ptr": "*i32"}
    types |= {"inverse_temperature": "fp32", "harden_factor": "fp32"}
    types |= dict.fromkeys(constants, "constexpr")
    names = kernel.arg_names
    signature = {n: types.get(n, "*fp32" if n.endswith("_ptr") else "i32") for n in names}
    aligned = {
        (k,): [["tt.divisibility", 16]] for k, n in enumerate(names) if signature[n][0] == "*"
    }
    compiled = triton_compile(
        ASTSource(kernel, signature, constants, aligned),
        target=GPUTarget("cuda", capability, 32),
        options={key: options[key] for key in ("num_warps", "num_stages", "enable_fp_fusion")},
    )
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= SMALLEST_SHARED_MEMORY
    assert ("mma" in compiled.asm["ptx"]) == (precision == "tf32")


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

    def test_memory_without_gradient_does_not_grow_with_the_square(self) -> None:
        columns = [column.float().cuda() for column in random_columns(2, 16384, 32)]
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.no_grad():
            rows = slice(0, 16384)
            streamed_cross_entropy(
                columns, BLOCKS["one"], rows=rows, temperature=0.05, implementation="triton"
            )
        assert torch.cuda.max_memory_allocated() - before < 16 * 2**20 < 16384**2
