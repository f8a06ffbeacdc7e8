"""Sources in shares that the user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.data.plan.samplers.base import (
    Epoch,
    WithinSource,
    open_streams,
    scheduled_plan,
    shuffled_schedule,
)
from inbatch.data.plan.samplers.mixed import check_mixed, mixed_plan
from inbatch.errors import ConfigError


@dataclass(frozen=True)
class Weighted:
    """Each source in a given share of the steps, in a shuffled order of sources.

    Shares are exact up to one step. A source whose share asks for more batches than it has is repeated,
    reshuffled; one whose share asks for fewer is used in part, another part in each epoch.

    weights: one positive number for each source name; they need not sum to 1.
    within: order inside a source, `Shuffled` or `NoDuplicates`.
    steps_per_epoch: None makes as many steps as all sources together have batches.
    batch_sizes: global batch size by source name, where it is not the common one.
    mixed: share out the rows inside each global batch (up to chance) instead of the steps.
    """

    weights: Mapping[str, float]
    within: WithinSource
    steps_per_epoch: int | None = None
    batch_sizes: Mapping[str, int] | None = None
    mixed: bool = False

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not weight > 0:
                raise ConfigError(f"weights['{name}'] is {weight}: set a number above 0")
        check_steps(self.steps_per_epoch)

    def plan(
        self,
        sources: Sequence[SourceInfo],
        *,
        global_batch_size: int,
        seed: int,
        epoch: int,
        drop_last: bool,
    ) -> Plan:
        """The batches of an epoch."""
        names = [source.name for source in sources]
        if sorted(names) != sorted(self.weights):
            raise ConfigError(
                f"weights names {sorted(self.weights)} and the sources are {sorted(names)}: "
                "give one weight for each source"
            )
        return shared_plan(
            self.within,
            sources,
            [self.weights[name] for name in names],
            Epoch(global_batch_size, seed, epoch, drop_last),
            steps_per_epoch=self.steps_per_epoch,
            batch_sizes=self.batch_sizes,
            mixed=self.mixed,
        )


def shared_plan(
    within: WithinSource,
    sources: Sequence[SourceInfo],
    shares: Sequence[float],
    epoch: Epoch,
    *,
    steps_per_epoch: int | None,
    batch_sizes: Mapping[str, int] | None,
    mixed: bool,
) -> Plan:
    """A plan in which source s has ``shares[s]`` of the steps, or of the rows of a mixture."""
    if mixed:
        check_mixed(sources, batch_sizes, epoch)
        all_rows = sum(source.num_rows for source in sources)
        rows = all_rows if steps_per_epoch is None else steps_per_epoch * epoch.global_batch_size
        return mixed_plan(within, sources, _counts(sources, shares, rows), epoch)
    streams = open_streams(within, sources, epoch, batch_sizes=batch_sizes)
    steps = steps_per_epoch or sum(stream.num_batches for stream in streams)
    schedule = shuffled_schedule(_counts(sources, shares, steps), epoch)
    return scheduled_plan(sources, streams, schedule, epoch)


def apportion(shares: Sequence[float], total: int) -> list[int]:
    """`total` divided in proportion to `shares`, in whole numbers (largest remainders first)."""
    exact = np.asarray(shares, dtype=np.float64) / np.sum(shares) * total
    counts = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(counts - exact, kind="stable")
    counts[by_remainder[: total - int(counts.sum())]] += 1
    return [int(count) for count in counts]


def check_steps(steps_per_epoch: int | None) -> None:
    """Refuse an epoch without steps."""
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise ConfigError(
            f"steps_per_epoch is {steps_per_epoch}: set at least 1, or null for all batches"
        )


def _counts(sources: Sequence[SourceInfo], shares: Sequence[float], total: int) -> list[int]:
    counts = apportion(shares, total)
    for source, count in zip(sources, counts):
        if count == 0:
            raise ConfigError(
                f"the share of source '{source.name}' rounds to 0 of steps_per_epoch {total}: "
                "raise steps_per_epoch or the share, or remove the source"
            )
    return counts
