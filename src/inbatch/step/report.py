"""The report of a training step to the callbacks that watch it."""

from __future__ import annotations

from collections.abc import Mapping
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
    num_texts: int  # texts that this rank embedded
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


class OpenRow:
    """The steps since the last row of the log, and the means that the row will have.

    What "loss" means everywhere, in the log, on the terminal and at Weights & Biases:

    - of a global batch: the mean over its rows, which is the mean of its ranks' losses, since those are
      weighted by rows already;
    - of a step: the mean over the global batches that it accumulates, as is its gradient;
    - of a row: the mean over its steps, which are those since the row before.

    The gradient norm and the loss's metrics alike, over the batches and steps that have them. Steps are
    added up one by one in float64, so that a row that a stop has cut in two is equal to the last bit.
    """

    def __init__(self) -> None:
        self._steps: list[list[StepReport]] = []  # by step, batches that are still on their device
        self._totals: dict[str, list[float]] = {}  # sum over the steps before, and their number
        self._is_open = False

    def add(self, report: StepReport, *, ends_step: bool) -> None:
        """Count a batch; waits for nothing."""
        if not self._is_open:
            self._steps.append([])
        self._steps[-1].append(report)
        self._is_open = not ends_step

    def read(self, *, world_size: int, device: torch.device) -> dict[str, float]:
        """The means; ``loss/<source>`` too where the steps come from several sources.

        Waits for the device once. Every rank calls it at the same steps, and all have the same names.

        Args:
            world_size: ranks.
            device: of the collective.
        """
        batches = [_scalars(report) for step in self._steps for report in step]
        scalars = [value.float() for batch in batches for value in batch.values()]
        # float64 on the device, where sums of float32 values are exact whatever the order of the ranks
        read = _over_ranks(torch.stack(scalars).double(), world_size, device) if scalars else []
        values = iter(read)
        by_batch = iter([dict(zip(batch, values)) for batch in batches])
        for step in self._steps:
            found: dict[str, list[float]] = {}
            for batch in [next(by_batch) for _ in step]:
                for name, value in batch.items():
                    found.setdefault(name, []).append(value)
            for name, of_batches in found.items():
                total = self._totals.setdefault(name, [0.0, 0.0])
                total[0] += sum(of_batches) / len(of_batches)
                total[1] += 1
        self._steps, self._is_open = [], False
        by_source = sum(name.startswith(_OF_SOURCE) for name in self._totals) > 1
        return {
            name: total / count
            for name, (total, count) in self._totals.items()
            if by_source or not name.startswith(_OF_SOURCE)
        }

    def state(self) -> dict[str, list[float]]:
        """What has been read, for a checkpoint."""
        return {name: list(total) for name, total in self._totals.items()}

    @classmethod
    def of_state(cls, state: Mapping[str, list[float]]) -> OpenRow:
        """The row that a checkpoint has the beginning of."""
        row = cls()
        row._totals = {name: list(total) for name, total in state.items()}
        return row


_OF_SOURCE = "loss/"


def _scalars(report: StepReport) -> dict[str, Tensor]:
    scalars = {
        "loss": report.loss,
        **report.metrics,
        f"{_OF_SOURCE}{report.source}": report.loss,
    }
    if report.gradient_norm is not None:
        scalars["gradient_norm"] = report.gradient_norm
    return scalars


def means_over_ranks(
    scalars: Mapping[str, float], *, world_size: int, device: torch.device
) -> dict[str, float]:
    """Mean of each scalar over the ranks; all ranks have the same names, since they run the same steps.

    Args:
        scalars: of this rank.
        world_size: ranks.
        device: of the collective.
    """
    values = torch.tensor(list(scalars.values()), dtype=torch.float64)
    return dict(zip(scalars, _over_ranks(values, world_size, device), strict=True))


def _over_ranks(values: Tensor, world_size: int, device: torch.device) -> list[float]:
    if world_size > 1:
        values = sum_over_ranks(values.to(device)) / world_size
    found: list[float] = values.tolist()
    return found
