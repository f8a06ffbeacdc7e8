"""A loss in smaller panels holds less memory, and is the same but for the order of its sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.keystone import LOSSES
from inbatch.losses.base import MOST_PANEL_HALVINGS, Loss, LossInput

ROWS, DIMENSION = 200, 8


class _Largest(TorchDispatchMode):
    """The values of the largest tensor that is made inside."""

    values = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.values = max(self.values, made.numel())
        return made


def run(loss: Loss, panel_halvings: int) -> tuple[Tensor, Tensor, int]:
    """Value, gradient, and the largest tensor on the way."""
    draws = torch.Generator().manual_seed(0)
    columns = [
        torch.randn(ROWS, DIMENSION, dtype=torch.float64, generator=draws).requires_grad_()
        for _ in range(3)
    ]
    guide = tuple(torch.randn(ROWS, 4, generator=draws) for _ in range(3))
    inputs = LossInput(tuple(columns), slice(0, ROWS), guide=guide, panel_halvings=panel_halvings)
    with _Largest() as largest:
        value = loss(inputs).loss
        gradients = torch.autograd.grad(value, columns)
    return value.detach(), torch.cat(gradients), largest.values


@pytest.mark.parametrize(
    "name", ["gist", "multiple_negatives_ranking", "matryoshka", "in_batch_kl", "weighted_sum"]
)
@pytest.mark.parametrize("halvings", [2, MOST_PANEL_HALVINGS])
def test_halved_panels(name: str, halvings: int) -> None:
    loss = LOSSES[name]
    if name == "matryoshka":
        loss = type(loss)(LOSSES["multiple_negatives_ranking"], dims=[8, 4])  # type: ignore[call-arg]
    wanted, found = run(loss, 0), run(loss, halvings)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-9, atol=1e-14)
    assert wanted[2] >= ROWS * ROWS
    assert found[2] <= max(wanted[2] // 4, 3 * ROWS * DIMENSION)  # panels, or columns and gradients
