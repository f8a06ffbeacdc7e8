"""The formulas of merging, and which models a greedy soup keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from inbatch.merging import combine
from inbatch.merging.combine import mean, slerp
from inbatch.merging.soup import greedy


def test_a_mean_is_added_up_in_float32() -> None:
    parts = [torch.randn(64, 32).to(torch.bfloat16) for _ in range(5)]
    shares = [0.1, 0.2, 0.3, 0.15, 0.25]
    found = mean(iter(parts), shares)
    exact = sum(share * part.double() for share, part in zip(shares, parts, strict=True))
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 1e-6
    assert mean(iter([torch.ones(2).double()]), [1.0]).dtype == torch.float64


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_slerp_goes_along_the_arc(share: float) -> None:
    a, b = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    found = slerp((a, b), [1 - share, share])
    assert found.norm() == pytest.approx(2.0)  # a mean would be shorter
    angle = math.atan2(float(found[0, 1]), float(found[0, 0]))
    assert angle == pytest.approx(share * math.pi / 2)


def test_slerp_of_vectors_without_an_arc_is_a_mean() -> None:
    a = torch.randn(10)
    for other in (2 * a, -a, torch.zeros(10), a + 1e-4 * torch.randn(10)):
        assert torch.equal(slerp((a, other), [0.3, 0.7]), mean((a, other), [0.3, 0.7]))


def test_slerp_holds_no_tensor_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combine, "SLICE", 7)
    a, b = torch.randn(5, 9), torch.randn(5, 9)
    widest, double = [], torch.Tensor.double

    def noted(self: torch.Tensor) -> torch.Tensor:
        widest.append(self.numel())
        return double(self)

    monkeypatch.setattr(torch.Tensor, "double", noted)
    found = slerp((a, b), [0.4, 0.6])
    monkeypatch.undo()
    assert max(widest) == 7
    x, y = a.double().flatten(), b.double().flatten()
    angle = torch.arccos(x @ y / (x.norm() * y.norm()))
    exact = (torch.sin(0.4 * angle) * x + torch.sin(0.6 * angle) * y) / torch.sin(angle)
    torch.testing.assert_close(found.double().flatten(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("largest", [True, False])
def test_a_greedy_soup_keeps_what_does_not_make_it_worse(largest: bool) -> None:
    sign = 1.0 if largest else -1.0
    soups = {(2, 0): 0.70, (2, 1): 0.90, (2, 1, 3): 0.90}
    asked = []

    def measure(places: Sequence[int]) -> float:
        asked.append(tuple(places))
        return sign * soups.get(tuple(places), math.nan)

    # Of 0 and 4, which are equally good, 0 is asked first; nan is last.
    values = [0.5, 0.5, 0.8, 0.4, math.nan]
    soup = greedy([sign * value for value in values], measure, largest=largest)
    assert asked == [(2, 0), (2, 1), (2, 1, 3), (2, 1, 3, 4)]
    assert soup.kept == [2, 1, 3]
    assert soup.value == sign * 0.90
