"""An optimizer, a schedule and a pooling of a user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class ScaledSGD(torch.optim.Optimizer):
    """``parameter -= lr * scale * gradient``."""

    def __init__(self, params: Any, *, lr: float, scale: float = 2.0, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "scale": scale, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        result = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * group["scale"] * parameter.grad)
        return result


@dataclass(frozen=True, kw_only=True)
class Stairs:
    """Half the learning rate after each `share` of the run."""

    share: float = 0.5

    def factor(self, step: int, total_steps: int) -> float:
        """Factor on the learning rate."""
        return float(0.5 ** (step // max(1, round(self.share * total_steps))))


def second_token(tokens: Tensor, mask: Tensor, padding: str) -> Tensor:
    """The state of the first token after [CLS], [n, D]."""
    return tokens[:, 1]
