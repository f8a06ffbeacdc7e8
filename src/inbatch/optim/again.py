"""An optimizer's step that is done again where memory runs out before it has changed anything.

So it is where a step makes its state, the first time. One that has begun to change parameters or their state
cannot be done again: it would count twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from types import MethodType
from typing import Any

import torch
from torch.optim import Optimizer

from inbatch.compat import num_writes
from inbatch.device.memory import is_out_of_memory, retried
from inbatch.errors import ConfigError


def step_again(optimizer: Optimizer, remedy: Callable[[], bool]) -> None:
    """Have an optimizer do a step again that runs out of memory, while that is exact and memory is found.

    Call it before a schedule is made, which wraps the step too. The step then raises a ConfigError where
    memory does not suffice.

    Args:
        optimizer: of any kind; its closure runs once.
        remedy: makes memory free, or returns False where there is nothing left to give.
    """
    step = optimizer.step

    @wraps(step)
    def again(self: Optimizer, closure: Callable[[], Any] | None = None, **options: Any) -> Any:
        if closure is not None:
            with torch.enable_grad():
                closure()
        before = _contents(optimizer)
        garbage = iter([True])  # an attempt with what the first one has left behind

        def remedied() -> bool:
            return _undo(optimizer, before) and (next(garbage, False) or remedy())

        try:
            return retried(partial(step, **options), remedied)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigError(
                "optimizer",
                "runs out of memory in its step",
                "set strategy=fsdp or deepspeed_stage_2 on more devices, which divide its state, "
                "strategy=deepspeed_stage_2_offload, or an optimizer with less state, such as adafactor",
            ) from error

    optimizer.step = MethodType(again, optimizer)  # type: ignore[method-assign]


def _contents(optimizer: Optimizer) -> list[tuple[int, dict[str, Any]]]:
    """By parameter, how often it has been written to, and the same of its state; numbers as they are."""
    return [
        (
            num_writes(parameter),
            {
                name: num_writes(value) if isinstance(value, torch.Tensor) else value
                for name, value in optimizer.state.get(parameter, {}).items()
            },
        )
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def _undo(optimizer: Optimizer, before: list[tuple[int, dict[str, Any]]]) -> bool:
    """Take away the state that a failed step has made; False if it has changed something else."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, (_, state) in zip(parameters, before, strict=True):
        if not state:
            optimizer.state.pop(parameter, None)
    return _contents(optimizer) == before
