"""Products that decide something are exact, and what was set before stands again afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from inbatch.device.matmul_precision import allow_tf32, exact_products

CUDA, CPU = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = CUDA.fp32_precision, CPU.fp32_precision
    yield
    torch.set_float32_matmul_precision("highest")
    CUDA.fp32_precision, CPU.fp32_precision = before


def test_tf32_is_allowed_outside_only() -> None:
    allow_tf32()
    with exact_products():
        assert (CUDA.fp32_precision, CPU.fp32_precision) == ("ieee", "ieee")
    assert CUDA.fp32_precision == "tf32"


def test_the_older_setting_can_be_read_throughout() -> None:
    """Lightning reads it when it sets up a GPU; torch raises if it was set by the newer name alone."""
    allow_tf32()
    assert torch.get_float32_matmul_precision() == "high"
    with exact_products():
        torch.get_float32_matmul_precision()
    assert torch.get_float32_matmul_precision() == "high"


def test_an_error_inside_changes_nothing() -> None:
    CPU.fp32_precision = "bf16"
    with pytest.raises(KeyError), exact_products():
        raise KeyError
    assert CPU.fp32_precision == "bf16"


def test_the_older_setting_stands_again() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with exact_products():
            pass
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_exact_products_are_exact_on_a_cpu_that_may_round() -> None:
    draws = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 256, generator=draws) for _ in range(2))
    exact = left.double() @ right.double()
    CPU.fp32_precision = "bf16"
    with exact_products():
        error = float((left @ right - exact).abs().max())
    assert error < 1e-4


def test_exact_products_are_exact_under_autocast() -> None:
    draws = torch.Generator().manual_seed(0)
    left, right = (torch.randn(64, 64, generator=draws) for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with exact_products():
            exact = left @ right
        rounded = left @ right
    assert (exact.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(exact, left @ right)
