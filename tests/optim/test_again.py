"""An optimizer's step that runs out of memory is done again where that is exact, and only there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from helpers.shortage import ERRORS
from inbatch.errors import ConfigError
from inbatch.optim import adamw, step_again

STEPS = 3
Make = Callable[[list[Any]], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "adamw fused": lambda groups: adamw(
        groups, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1
    ),
    "adamw foreach": lambda groups: torch.optim.AdamW(groups, lr=0.1, foreach=True),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    "adafactor": lambda groups: torch.optim.Adafactor(groups, lr=0.1),
}


def zeros_fail(monkey: pytest.MonkeyPatch, *, at: int, error: str) -> None:
    """State cannot be made, at one of the calls that make some."""
    count = [0]
    for name in ("zeros_like", "clone"):
        whole = getattr(torch, name)

        def starved(*args: Any, whole: Any = whole, **options: Any) -> Tensor:
            count[0] += 1
            if count[0] == at:
                raise ERRORS[error]
            return whole(*args, **options)  # type: ignore[no-any-return]

        monkey.setattr(torch, name, starved)


def train(name: str, *, fails_at: int = 0, error: str = "allocator") -> list[Tensor]:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(5, 2))]
    optimizer = OPTIMIZERS[name]([{"params": parameters}])
    step_again(optimizer, lambda: False)
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    closures = []
    for number in range(STEPS):
        for parameter in parameters:
            parameter.grad = parameter.detach().sin()
        with pytest.MonkeyPatch.context() as monkey:
            if fails_at and number == 0:
                zeros_fail(monkey, at=fails_at, error=error)
            optimizer.step(partial(closures.append, number))
        schedule.step()
    assert closures == [*range(STEPS)]
    return [*parameters, *(t for p in parameters for t in optimizer.state[p].values())]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["adamw fused", "adamw foreach"])
@pytest.mark.parametrize("fails_at", [1, 2, 4])
def test_state_that_does_not_fit_at_first(name: str, fails_at: int, error: str) -> None:
    for wanted, found in zip(train(name), train(name, fails_at=fails_at, error=error), strict=True):
        assert torch.equal(wanted, found)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_has_changed_something_is_not_done_again(name: str) -> None:
    """Whatever the optimizer, a step that is complete is seen to have changed something."""
    parameter, steps = nn.Parameter(torch.ones(4, 4)), [0]
    optimizer = OPTIMIZERS[name]([{"params": [parameter]}])
    whole = type(optimizer).step

    class Failing(type(optimizer)):  # type: ignore[misc]
        def step(self, closure: Any = None) -> None:
            whole(self)
            steps[0] += 1
            if steps[0] == 2:
                raise torch.OutOfMemoryError("test")

    optimizer.__class__ = Failing
    step_again(optimizer, lambda: True)
    for number in range(2):
        parameter.grad = torch.ones(4, 4)
        if number == 0:
            optimizer.step()
    with pytest.raises(ConfigError, match=r"^optimizer runs out of memory in its step: set str"):
        optimizer.step()
    assert steps == [2]


def test_it_ends_once_nothing_is_left_to_give() -> None:
    class Never(torch.optim.SGD):
        attempts = 0

        def step(self, closure: Any = None) -> None:
            self.attempts += 1
            raise torch.OutOfMemoryError("test")

    optimizer, left = Never([nn.Parameter(torch.ones(2))], lr=0.1), [2]

    def remedy() -> bool:
        left[0] -= 1
        return left[0] >= 0

    step_again(optimizer, remedy)
    with pytest.raises(ConfigError):
        optimizer.step()
    assert optimizer.attempts == 4  # one after the garbage is gone, two after remedies


def test_other_errors_pass() -> None:
    class Wrong(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            raise RuntimeError("shapes")

    optimizer = Wrong([nn.Parameter(torch.ones(2))], lr=0.1)
    step_again(optimizer, lambda: True)
    with pytest.raises(RuntimeError, match="shapes"):
        optimizer.step()
