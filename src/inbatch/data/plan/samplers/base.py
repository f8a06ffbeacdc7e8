"""What samplers are made of: pools of rows, streams of batches, and the schedule of sources.

A *within-source* sampler (`Shuffled`, `NoDuplicates`) opens a pool of rows as a `BatchStream`. A *mixer*
(`RoundRobin`, `Proportional`, `Temperature`, `Weighted`) decides which source each step is on and takes
that source's next batch; it knows nothing of rows. Shape letters: n rows asked for, N rows, V values, S
steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Protocol

import numpy as np

from inbatch.data.plan.permutation import FilesRange, KeyedPermutation, derive_key
from inbatch.data.plan.plan import BatchStream, Plan, SourceInfo, StreamInfo
from inbatch.errors import ConfigError

_KEY_SALT = np.uint64(0xA5A5_5A5A_C3C3_3C3C)  # a row's key and a text are never the same value


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


class FileOrder(Protocol):
    """An order of rows that lie in files, of which few are to be read at a time."""

    @property
    def num_rows(self) -> int:
        """N."""

    @property
    def windows(self) -> list[tuple[int, int]]:
        """First position of each window of files, and the first after it."""

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Rows [stop - start] int64 at positions ``start .. stop - 1``."""


class Pool(Protocol):
    """Rows to draw from: one source, or several under one numbering."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def num_rows(self) -> int:
        """N."""

    @property
    def has_keys(self) -> bool:
        """Whether rows carry keys, which are among their values."""

    def file_order(self, key: int) -> FileOrder | None:
        """The order of rows that are read file by file; None where any row may come next."""

    def values(self, rows: np.ndarray) -> np.ndarray:
        """Values of rows [n] that must not meet in a batch, uint64 [n, V]."""


class WithinSource(Protocol):
    """How the rows of one pool become batches."""

    def open(self, pool: Pool, *, batch_rows: int, key: int, drop_last: bool) -> BatchStream:
        """The batches of one pass over the pool; `key` decides the order."""


@dataclass(frozen=True, eq=False)
class SourcePool:
    """The rows of one source; hashes are asked for when a value is."""

    source: SourceInfo

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def num_rows(self) -> int:
        """N."""
        return self.source.num_rows

    @property
    def has_keys(self) -> bool:
        """Whether the source has keys."""
        return self.source.keys is not None

    def file_order(self, key: int) -> FilesRange | None:
        """The order of a source that is read file by file."""
        return None if self.source.stream is None else files_range(self.source.stream, key)

    def values(self, rows: np.ndarray) -> np.ndarray:
        """Hashes of the texts, and of the key where the source has one."""
        values = np.empty((len(rows), len(self._columns)), dtype=np.uint64)
        for column, numbers in enumerate(self._columns):
            values[:, column] = numbers[rows]
        if self.source.keys is not None:
            values[:, -1] ^= _KEY_SALT
        return values

    @cached_property
    def _columns(self) -> list[np.ndarray]:
        if self.source.hashes is None:
            raise ConfigError(
                f"source '{self.name}' has no text hashes, which sampler=no_duplicates needs: "
                "give SourceInfo.hashes or choose sampler=batch"
            )
        columns = [np.asarray(column) for column in self.source.hashes()]
        return columns if self.source.keys is None else [*columns, np.asarray(self.source.keys())]


@lru_cache(maxsize=16)  # of what it derives from many files
def files_range(stream: StreamInfo, key: int) -> FilesRange:
    """The order of rows that lie in files."""
    return FilesRange(stream.file_rows, key, stream.buffer_files)


@dataclass(eq=False)
class CycledStream:
    """Passes over one source, each in an order of its own, one after the other."""

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

    def num_placed(self, num_batches: int) -> int:
        """Rows in the first `num_batches` batches of the first pass."""
        return self._passes[0].num_placed(min(num_batches, self.num_batches))


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
    """Open a pool, and refuse one that gives no batch: it would be left out without a word."""
    stream = within.open(pool, batch_rows=batch_rows, key=key, drop_last=drop_last)
    if stream.num_batches == 0:
        raise ConfigError(
            f"global_batch_size {batch_rows} leaves no full batch of source '{pool.name}' "
            f"({pool.num_rows} rows): lower it or set drop_last=false"
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
        unplaced={
            source.name: source.num_rows - stream.num_placed(count)
            for source, stream, count in zip(sources, streams, counts)
        },
    )


def single_plan(within: WithinSource, sources: Sequence[SourceInfo], epoch: Epoch) -> Plan:
    """The plan of a within-source sampler used by itself."""
    if len(sources) > 1:
        names = ", ".join(source.name for source in sources)
        raise ConfigError(
            f"sampler {type(within).__name__} plans one source and there are {len(sources)} ({names}): "
            "choose sampler=proportional or another mixer, with this sampler as its 'within'"
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
    """Refuse no sources, sources without rows, and names that occur twice."""
    names = [source.name for source in sources]
    if not names:
        raise ConfigError("data.train names no source: name at least one")
    for source in sources:
        if source.num_rows == 0:
            raise ConfigError(f"source '{source.name}' has 0 rows: remove it or give it data")
        if names.count(source.name) > 1:
            raise ConfigError(
                f"source name '{source.name}' occurs twice: give each source its own name"
            )


def _batch_rows(
    sources: Sequence[SourceInfo], batch_sizes: Mapping[str, int] | None, default: int
) -> dict[str, int]:
    if default < 1:
        raise ConfigError(f"global_batch_size is {default}: set at least 1")
    sizes = {source.name: default for source in sources}
    for name, size in (batch_sizes or {}).items():
        if name not in sizes:
            raise ConfigError(
                f"batch_sizes names '{name}' and the sources are {', '.join(sizes)}: rename or remove it"
            )
        if size < 1:
            raise ConfigError(f"batch_sizes['{name}'] is {size}: set at least 1")
        sizes[name] = size
    return sizes
