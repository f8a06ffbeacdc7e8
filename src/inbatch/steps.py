"""Pure parts of a training step: its place, its randomness, and its optimizer state by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer


def accumulation(step: int, num_steps: int, accumulate: int) -> tuple[int, int]:
    """Place of a batch in its optimizer step, and how many batches that step holds.

    The last optimizer step of an epoch holds what is left: 10 batches by 4 give sizes 4, 4, 2.
    """
    start = step - step % accumulate
    return step - start, min(accumulate, num_steps - start)


def name_optimizer_state(
    state: dict[str, Any], optimizer: Optimizer, names: Mapping[Tensor, str]
) -> None:
    """Replace the numbers of parameters in an optimizer's state dict by their names, in place."""
    by_number = {
        number: names[parameter]
        for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True)
        for parameter, number in zip(group["params"], saved["params"], strict=True)
    }
    state["state"] = {by_number.get(key, key): value for key, value in state["state"].items()}
    for group in state["param_groups"]:
        group["params"] = [by_number.get(number, number) for number in group["params"]]


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Make dropout a function of where the run is, so that a resumed run needs no random state.

    Ranks draw differently, since they hold different rows.
    """
    mixed = np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0]))
