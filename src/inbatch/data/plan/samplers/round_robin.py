"""Sources in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.data.plan.samplers.base import Epoch, EpochSampler, open_streams, scheduled_plan
from inbatch.data.plan.samplers.mixed import check_mixed, mixed_plan
from inbatch.data.plan.samplers.pools import WithinSource
from inbatch.errors import ConfigError

_ENDS = {"first_exhausted": min, "cycle_until_largest": max}


@dataclass(frozen=True)
class RoundRobin(EpochSampler):
    """One batch of each source in turn, on all ranks the same (sentence-transformers' ``round_robin``).

    within: order inside a source, `Shuffled` or `NoDuplicates`.
    stop: "first_exhausted" ends the epoch after the last full round, as sentence-transformers does, and
        leaves rows of larger sources out; "cycle_until_largest" repeats smaller sources, reshuffled, until
        the largest has been seen.
    batch_sizes: global batch size by source name, where it is not the common one.
    mixed: put equally many rows of all sources in each global batch (up to chance) instead.
    """

    within: WithinSource
    stop: Literal["first_exhausted", "cycle_until_largest"] = "first_exhausted"
    batch_sizes: Mapping[str, int] | None = None
    mixed: bool = False

    def __post_init__(self) -> None:
        if self.stop not in _ENDS:
            raise ConfigError(
                "sampler.stop",
                "is not a known rule",
                f"set one of {', '.join(_ENDS)}",
                value=self.stop,
            )

    def plan_epoch(self, sources: Sequence[SourceInfo], epoch: Epoch) -> Plan:
        """The batches of an epoch."""
        end = _ENDS[self.stop]
        if self.mixed:
            check_mixed(sources, self.batch_sizes, epoch)
            rows = end(source.num_rows for source in sources)
            return mixed_plan(self.within, sources, [rows] * len(sources), epoch)
        streams = open_streams(self.within, sources, epoch, batch_sizes=self.batch_sizes)
        rounds = end(stream.num_batches for stream in streams)
        schedule = np.tile(np.arange(len(sources)), rounds)
        return scheduled_plan(sources, streams, schedule, epoch)
