"""Sources in shares that the user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.data.plan.samplers.base import (
    Epoch,
    EpochSampler,
    open_streams,
    scheduled_plan,
    shuffled_schedule,
)
from inbatch.data.plan.samplers.mixed import check_mixed, mixed_plan
from inbatch.data.plan.samplers.pools import WithinSource
from inbatch.errors import ConfigError


@dataclass(frozen=True)
class Weighted(EpochSampler):
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
                raise ConfigError(
                    f"sampler.weights.{name}",
                    "is not above 0",
                    "set a number above 0",
                    value=weight,
                )
        check_steps(self.steps_per_epoch)

    def plan_epoch(self, sources: Sequence[SourceInfo], epoch: Epoch) -> Plan:
        """The batches of an epoch."""
        names = [source.name for source in sources]
        if sorted(names) != sorted(self.weights):
            raise ConfigError(
                "sampler.weights",
                f"names {sorted(self.weights)}, but the sources are {sorted(names)}",
                "give one weight for each source",
            )
        return shared_plan(
            self.within,
            sources,
            [self.weights[name] for name in names],
            epoch,
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
            "sampler.steps_per_epoch",
            "is below 1",
            "set at least 1, or null for all batches",
            value=steps_per_epoch,
        )


def _counts(sources: Sequence[SourceInfo], shares: Sequence[float], total: int) -> list[int]:
    counts = apportion(shares, total)
    for source, count in zip(sources, counts):
        if count == 0:
            raise ConfigError(
                "sampler.weights",
                f"gives source '{source.name}' 0 of {total} steps or rows",
                "raise its weight or sampler.steps_per_epoch, or remove the source",
            )
    return counts
