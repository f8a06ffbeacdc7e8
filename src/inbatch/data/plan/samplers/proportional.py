"""Sources in proportion to their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Proportional(EpochSampler):
    """All batches of all sources, in a shuffled order of sources (sentence-transformers' ``proportional``).

    within: order inside a source, `Shuffled` or `NoDuplicates`.
    batch_sizes: global batch size by source name, where it is not the common one.
    mixed: shuffle the rows of all sources together instead of their batches.
    """

    within: WithinSource
    batch_sizes: Mapping[str, int] | None = None
    mixed: bool = False

    def plan_epoch(self, sources: Sequence[SourceInfo], epoch: Epoch) -> Plan:
        """The batches of an epoch."""
        if self.mixed:
            check_mixed(sources, self.batch_sizes, epoch)
            return mixed_plan(self.within, sources, [source.num_rows for source in sources], epoch)
        streams = open_streams(self.within, sources, epoch, batch_sizes=self.batch_sizes)
        schedule = shuffled_schedule([stream.num_batches for stream in streams], epoch)
        return scheduled_plan(sources, streams, schedule, epoch)
