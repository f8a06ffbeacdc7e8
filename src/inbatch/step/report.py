"""The report of a training step to the callbacks that watch it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from inbatch.gather import sum_over_ranks


@dataclass(frozen=True, slots=True)
class StepReport:
    """Numbers of one global batch.

    Tensors are detached and stay on their device, so that no step waits for the host.
    """

    loss: Tensor  # scalar, mean over this rank's rows
    metrics: Mapping[str, Tensor]  # scalars of the loss, this rank's
    num_rows: int  # over all ranks
    num_tokens: int  # real tokens of this rank
    num_padded_tokens: int  # tokens that this rank computed, padding included
    learning_rate: float  # of the first parameter group
    gradient_norm: Tensor | None  # scalar, before clipping; None where no optimizer step was taken
    phases: Mapping[str, float]  # seconds per part of the step, as far as the device has come
    source: str  # name of the source that the rows come from
    num_skipped: int = 0  # optimizer steps left out up to now, since their gradient was not finite
    compiled_graphs: int | None = None  # by torch.compile up to now; None where it is not in use


class Watched(Protocol):
    """A LightningModule whose steps can be watched."""

    last_step: StepReport | None  # set by each training step
    total_steps: int  # optimizer steps of the whole run


def mean_scalars(reports: Sequence[StepReport]) -> dict[str, float]:
    """Mean over steps of ``loss``, ``gradient_norm`` and each metric; waits for the device once.

    Where the steps come from several sources, ``loss/<source>`` is given for each of them.

    A value that some of the steps lack is averaged over the steps that have it.
    """
    found: dict[str, list[Tensor]] = {}
    several = len({report.source for report in reports}) > 1
    for report in reports:
        scalars = {"loss": report.loss, **report.metrics}
        if several:
            scalars[f"loss/{report.source}"] = report.loss
        if report.gradient_norm is not None:
            scalars["gradient_norm"] = report.gradient_norm
        for name, value in scalars.items():
            found.setdefault(name, []).append(value.float())
    if not found:
        return {}
    means = torch.stack([torch.stack(values).mean() for values in found.values()])
    return dict(zip(found, means.tolist(), strict=True))


def means_over_ranks(
    scalars: Mapping[str, float], *, world_size: int, device: torch.device
) -> dict[str, float]:
    """Mean of each scalar over the ranks; all ranks have the same names, since they run the same steps.

    A loss is weighted by rows already, so the mean of the ranks' losses is that of the global batch.

    Args:
        scalars: of this rank.
        world_size: ranks.
        device: of the collective.
    """
    if world_size == 1:
        return dict(scalars)
    values = torch.tensor(list(scalars.values()), dtype=torch.float64, device=device)
    means = sum_over_ranks(values) / world_size
    return dict(zip(scalars, means.tolist(), strict=True))
