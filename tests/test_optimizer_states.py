"""The planner counts what an optimizer holds for a parameter; no optimizer is listed anywhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from inbatch.config.instantiate import instantiate
from inbatch.config.schema import CONF
from inbatch.run.auto_sizes import UNKNOWN_STATES, optimizer_states
from inbatch.strategies import DDP, DeepSpeed

STATES = {"adafactor": 0, "adagrad": 1, "adam": 2, "adamw": 2, "rmsprop": 1, "sgd": 0}


@pytest.mark.parametrize("path", sorted((CONF / "optimizer").glob("*.yaml")), ids=lambda p: p.stem)
def test_optimizers_of_conf(path: Path) -> None:
    make = instantiate(yaml.safe_load(path.read_text()))
    assert optimizer_states(make, DDP()) == STATES.get(path.stem, 2)


class Triple(torch.optim.Optimizer):
    """An optimizer that the package has never heard of."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "step": torch.zeros(()),
                    **{name: torch.zeros_like(parameter) for name in "abc"},
                }


class OnGpuOnly(Triple):
    """An optimizer that cannot step here."""

    def step(self, closure: Any = None) -> None:
        raise RuntimeError("needs a GPU")


def test_other_optimizers() -> None:
    assert optimizer_states(partial(torch.optim.SGD, lr=0.1, momentum=0.9), DDP()) == 1
    assert optimizer_states(partial(torch.optim.AdamW, amsgrad=True), DDP()) == 3
    assert optimizer_states(Triple, DDP()) == 3
    assert optimizer_states(OnGpuOnly, DDP()) == UNKNOWN_STATES


def test_offloaded_states_take_no_memory_of_the_device() -> None:
    assert optimizer_states(Triple, DeepSpeed(stage=2, offload_optimizer=True)) == 0
