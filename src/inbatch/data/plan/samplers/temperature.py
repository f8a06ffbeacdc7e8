"""Sources in shares that flatten as a temperature rises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.data.plan.samplers.base import Epoch, EpochSampler
from inbatch.data.plan.samplers.pools import WithinSource
from inbatch.data.plan.samplers.weighted import check_steps, shared_plan
from inbatch.errors import ConfigError


@dataclass(frozen=True)
class Temperature(EpochSampler):
    """`Weighted` with the weights ``num_rows ** (1 / temperature)`` (Arivazhagan et al. 2019, section 4.2).

    Temperature 1 gives sources in proportion to their rows, infinity gives equal shares.

    within: order inside a source, `Shuffled` or `NoDuplicates`.
    steps_per_epoch, batch_sizes, mixed: as in `Weighted`.
    """

    within: WithinSource
    temperature: float = 2.0
    steps_per_epoch: int | None = None
    batch_sizes: Mapping[str, int] | None = None
    mixed: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(
                "sampler.temperature",
                "is not above 0",
                "set a number above 0",
                value=self.temperature,
            )
        check_steps(self.steps_per_epoch)

    def plan_epoch(self, sources: Sequence[SourceInfo], epoch: Epoch) -> Plan:
        """The batches of an epoch."""
        return shared_plan(
            self.within,
            sources,
            temperature_shares([source.num_rows for source in sources], self.temperature),
            epoch,
            steps_per_epoch=self.steps_per_epoch,
            batch_sizes=self.batch_sizes,
            mixed=self.mixed,
        )


def temperature_shares(sizes: Sequence[int], temperature: float) -> list[float]:
    """Shares proportional to ``size ** (1 / temperature)``; they sum to 1."""
    largest = max(sizes, default=1)  # powers of sizes relative to it cannot overflow
    powers = [(size / largest) ** (1.0 / temperature) for size in sizes]
    return [power / sum(powers) for power in powers]
