"""Rates of a device are plausible, and measured in the time that is given."""

from __future__ import annotations

import time

import pytest
import torch

from inbatch.device import rates
from inbatch.device.rates import copy_bytes_per_s, matmul_flop_per_s

CPU = torch.device("cpu")


@pytest.mark.parametrize("operations_per_s", [1e8, 1e11])
def test_sizes_follow_the_speed(operations_per_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def seconds(device: torch.device, work: object, left: torch.Tensor, right: object) -> float:
        sizes.append(len(left))
        return 2.0 * len(left) ** 3 / operations_per_s

    monkeypatch.setattr(rates, "_seconds", seconds)
    assert matmul_flop_per_s(CPU, torch.float32, budget_s=1.0) == pytest.approx(operations_per_s)
    assert max(sizes) == {1e8: 256, 1e11: 2048}[operations_per_s]
    spent = sum(2.0 * size**3 / operations_per_s for size in sizes)
    not_counted = sum(2.0 * size**3 / operations_per_s for size in {*sizes})
    assert 1.0 <= spent - not_counted < 1.5


def test_this_machine_is_measured_and_its_random_state_left_alone() -> None:
    before, start = torch.get_rng_state(), time.process_time()
    assert 1e8 < matmul_flop_per_s(CPU, torch.float32, budget_s=0.02) < 1e14
    assert 1e8 < copy_bytes_per_s(CPU, budget_s=0.02) < 1e13
    assert torch.equal(torch.get_rng_state(), before)
    assert time.process_time() - start < 5.0
