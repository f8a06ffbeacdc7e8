"""Pure parts of a training step: its settings, place and randomness, and its optimizer state by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """How a step runs.

    gather: "global" contrasts with the rows of all ranks, "ring" does so without holding them all at a time,
        "local" contrasts with the rank's own.
    keep_gib: GiB of activations that gradient caching may hold; None holds all (no second forward).
    accumulate: global batches per optimizer step; each contrasts within itself.
    clip_norm: largest gradient norm, None for no clipping.
    learning_rate_mapping: {regex over parameter names: learning rate}.
    compile: run the encoder's backbone through torch.compile.
    seed: of dropout.
    """

    gather: Literal["global", "ring", "local"] = "global"
    keep_gib: float | None = None
    accumulate: int = 1
    clip_norm: float | None = 1.0
    learning_rate_mapping: Mapping[str, float] | None = None
    compile: bool = False
    seed: int = 42


def accumulation(step: int, num_steps: int, accumulate: int) -> tuple[int, int]:
    """Place of a batch in its optimizer step, and how many batches that step holds.

    The last optimizer step of an epoch holds what is left: 10 batches by 4 give sizes 4, 4, 2.
    """
    start = step - step % accumulate
    return step - start, min(accumulate, num_steps - start)


def name_optimizer_states(
    optimizers: Sequence[Optimizer],
    states: Sequence[dict[str, Any]],
    named_parameters: Iterable[tuple[str, Tensor]],
) -> None:
    """Replace the numbers of parameters in optimizers' state dicts by their names, in place.

    Those of sharded parameters have names already.
    """
    names = {parameter: name for name, parameter in named_parameters}
    for optimizer, state in zip(optimizers, states):
        if any(isinstance(key, int) for key in state.get("state", ())):
            _name_state(state, optimizer, names)


def _name_state(state: dict[str, Any], optimizer: Optimizer, names: Mapping[Tensor, str]) -> None:
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


def count_epochs(fit_loop: dict[str, Any]) -> None:
    """Make the counts of epochs in a state of Lightning's fit loop those of a run that was never stopped.

    A resumed loop forgets to count the epoch that it goes on with. Unless that is mended in what it saves,
    the next run to resume goes back by an epoch. For states that are saved inside an epoch.
    """
    done = fit_loop["epoch_progress"]["current"]["processed"]
    for counts in fit_loop["epoch_progress"].values():
        counts.update(ready=done + 1, started=done + 1, processed=done, completed=done)
