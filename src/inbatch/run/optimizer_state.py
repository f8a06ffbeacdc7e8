"""Changes to the checkpoints of Lightning: optimizer state by name, and a right count of epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


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


def count_epochs(fit_loop: dict[str, Any]) -> None:
    """Make the counts of epochs in a state of Lightning's fit loop those of a run that was never stopped.

    A resumed loop forgets to count the epoch that it resumes. Unless that is mended in what it saves,
    the next run to resume goes back by an epoch. For states that are saved inside an epoch.
    """
    done = fit_loop["epoch_progress"]["current"]["processed"]
    for counts in fit_loop["epoch_progress"].values():
        counts.update(ready=done + 1, started=done + 1, processed=done, completed=done)
