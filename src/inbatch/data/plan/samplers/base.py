"""Building blocks of samplers: pools of rows, streams of batches, and the schedule of sources.

A *within-source* sampler (`Shuffled`, `NoDuplicates`) opens a pool of rows as a `BatchStream`. A *mixer*
(`RoundRobin`, `Proportional`, `Temperature`, `Weighted`) decides which source each step is on and takes
that source's next batch; it does not look at rows. Shape letters: n rows asked for, N rows, V values, S
steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from inbatch.data.plan.permutation import KeyedPermutation, derive_key
from inbatch.data.plan.plan import BatchStream, Plan, SourceInfo
from inbatch.data.plan.samplers.pools import Pool, SourcePool, WithinSource
from inbatch.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Epoch:
    """The numbers that, besides data and sampler, decide a plan."""

    global_batch_size: int
    seed: int
    number: int
    drop_last: bool

    def key(self, *parts: int | str) -> int:
        """Key of one order in this epoch."""
        return derive_key(self.seed, self.number, *parts)


class EpochSampler(ABC):
    """A `plan.Sampler` whose `plan_epoch` has the numbers that decide an epoch as one value."""

    def plan(
        self,
        sources: Sequence[SourceInfo],
        *,
        global_batch_size: int,
        seed: int,
        epoch: int,
        drop_last: bool,
    ) -> Plan:
        """Plan the batches of an epoch.

        Args:
            sources: what to draw from.
            global_batch_size: rows of a batch, over all ranks.
            seed: of every order in the plan.
            epoch: counts from 0; each has different orders.
            drop_last: leave out batches that are not full.
        """
        return self.plan_epoch(sources, Epoch(global_batch_size, seed, epoch, drop_last))

    @abstractmethod
    def plan_epoch(self, sources: Sequence[SourceInfo], epoch: Epoch) -> Plan:
        """Plan the batches of an epoch."""


@dataclass(eq=False)
class CycledStream:
    """Passes over one source, one after the other, each in a different order."""

    open_pass: Callable[[int], BatchStream]

    def __post_init__(self) -> None:
        self._passes = [self.open_pass(0)]
        self._starts = [0, self._passes[0].num_batches]

    @property
    def num_batches(self) -> int:
        """Batches of the first pass."""
        return self._starts[1]

    def extend_to(self, num_batches: int) -> None:
        """Open as many passes as hold this many batches."""
        while self._starts[-1] < num_batches:
            self._passes.append(self.open_pass(len(self._passes)))
            self._starts.append(self._starts[-1] + self._passes[-1].num_batches)

    def rows(self, index: int) -> np.ndarray:
        """Row numbers of a batch."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._passes[number].rows(index - self._starts[number])

    def num_rows_in(self, num_batches: int) -> int:
        """Rows in the first `num_batches` batches of the first pass."""
        return self._passes[0].num_rows_in(min(num_batches, self.num_batches))


def open_streams(
    within: WithinSource,
    sources: Sequence[SourceInfo],
    epoch: Epoch,
    *,
    batch_sizes: Mapping[str, int] | None = None,
) -> tuple[CycledStream, ...]:
    """One stream for each source; its order depends on seed, epoch and name, not on the other sources."""
    check_sources(sources)
    sizes = _batch_rows(sources, batch_sizes, epoch.global_batch_size)
    return tuple(
        CycledStream(partial(_open_pass, within, SourcePool(source), epoch, sizes[source.name]))
        for source in sources
    )


def _open_pass(
    within: WithinSource, pool: Pool, epoch: Epoch, batch_rows: int, number: int
) -> BatchStream:
    key = epoch.key(pool.name, number)
    return open_pool(within, pool, batch_rows=batch_rows, key=key, drop_last=epoch.drop_last)


def open_pool(
    within: WithinSource, pool: Pool, *, batch_rows: int, key: int, drop_last: bool
) -> BatchStream:
    """Open a pool, and refuse one that gives no batch, which would be left out silently."""
    stream = within.open(pool, batch_rows=batch_rows, key=key, drop_last=drop_last)
    if stream.num_batches == 0:
        raise ConfigError(
            "global_batch_size",
            f"leaves no full batch of source '{pool.name}' ({pool.num_rows} rows)",
            "lower it, or set drop_last=false",
            value=batch_rows,
        )
    return stream


def scheduled_plan(
    sources: Sequence[SourceInfo],
    streams: Sequence[CycledStream],
    source_of_step: np.ndarray,
    epoch: Epoch,
) -> Plan:
    """A plan of batches that hold one source each."""
    counts = np.bincount(source_of_step, minlength=len(sources)).tolist()
    for stream, count in zip(streams, counts):
        stream.extend_to(count)
    return Plan(
        epoch=epoch.number,
        names=tuple(source.name for source in sources),
        streams=tuple(streams),
        source_of_step=source_of_step,
        skipped={
            source.name: source.num_rows - stream.num_rows_in(count)
            for source, stream, count in zip(sources, streams, counts)
        },
    )


def single_plan(within: WithinSource, sources: Sequence[SourceInfo], epoch: Epoch) -> Plan:
    """The plan of a within-source sampler used by itself."""
    if len(sources) > 1:
        names = ", ".join(source.name for source in sources)
        raise ConfigError(
            "sampler",
            f"is {type(within).__name__}, which plans one source, and there are {len(sources)} ({names})",
            "set sampler=proportional or another mixer, with this sampler as its 'within'",
        )
    streams = open_streams(within, sources, epoch)
    schedule = np.zeros(streams[0].num_batches, dtype=np.int64)
    return scheduled_plan(sources, streams, schedule, epoch)


def shuffled_schedule(counts: Sequence[int], epoch: Epoch) -> np.ndarray:
    """Source of each step [S], each source as often as `counts` says, in an order of seed and epoch."""
    in_turn = np.repeat(np.arange(len(counts)), counts)
    order = KeyedPermutation(len(in_turn), epoch.key("schedule"))
    return in_turn[order(np.arange(len(in_turn)))]


def check_sources(sources: Sequence[SourceInfo]) -> None:
    """Refuse an empty list, sources without rows, and names that occur twice."""
    names = [source.name for source in sources]
    if not names:
        raise ConfigError("data.train", "names no source", "name at least one")
    for source in sources:
        if source.num_rows == 0:
            raise ConfigError(f"source '{source.name}'", "has 0 rows", "remove it, or give it data")
        if names.count(source.name) > 1:
            raise ConfigError(
                f"source '{source.name}'", "occurs twice", "give each source a different name"
            )


def _batch_rows(
    sources: Sequence[SourceInfo], batch_sizes: Mapping[str, int] | None, default: int
) -> dict[str, int]:
    if default < 1:
        raise ConfigError("global_batch_size", "is below 1", "set at least 1", value=default)
    sizes = {source.name: default for source in sources}
    for name, size in (batch_sizes or {}).items():
        if name not in sizes:
            raise ConfigError(
                "sampler.batch_sizes",
                f"names '{name}', but the sources are {', '.join(sizes)}",
                "rename or remove it",
            )
        if size < 1:
            raise ConfigError(
                f"sampler.batch_sizes.{name}", "is below 1", "set at least 1", value=size
            )
        sizes[name] = size
    return sizes
