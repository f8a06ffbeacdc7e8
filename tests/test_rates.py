"""Rates of a device are measured in the time that is given, whatever they are."""

from __future__ import annotations

import pytest
import torch

from inbatch.device import rates
from inbatch.device.rates import copy_bytes_per_s, matmul_flop_per_s

CPU = torch.device("cpu")


@pytest.mark.parametrize("flop_per_s", [1e7, 1e9, 1e12, 1e15])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_rate_of_products_takes_little_time_on_any_device(
    device: str, flop_per_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each product takes what it does on a device of this rate."""
    sizes: list[int] = []

    def seconds(on: torch.device, product: object, left: torch.Tensor, right: object) -> float:
        sizes.append(len(left))
        return 2.0 * len(left) ** 3 / flop_per_s

    monkeypatch.setattr(rates, "_seconds", seconds)
    monkeypatch.setattr(torch, "Generator", lambda device: torch._C.Generator())
    monkeypatch.setattr(torch, "randn", lambda *size, **options: torch.empty(size[0], 0))
    found = matmul_flop_per_s(torch.device(device), torch.float32, budget_s=0.2)
    assert found == pytest.approx(flop_per_s)
    smallest = 2 * 2 * 256**3 / flop_per_s  # without which there is no rate
    assert sum(2 * size**3 / flop_per_s for size in sizes) <= max(0.2, smallest)
    if flop_per_s == 1e15:
        assert max(sizes) == (8192 if device == "cuda" else 2048)


def test_this_machine_is_measured_and_its_random_state_left_alone() -> None:
    before = torch.get_rng_state()
    assert 1e7 < matmul_flop_per_s(CPU, torch.float32, budget_s=0.02) < 1e15
    assert 1e7 < copy_bytes_per_s(CPU, budget_s=0.02) < 1e14
    assert torch.equal(torch.get_rng_state(), before)
