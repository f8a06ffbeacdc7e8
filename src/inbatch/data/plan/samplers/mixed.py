"""Global batches that hold rows of several sources.

The sources become one pool under one numbering, as many rows of each as the mixer asks for, and the
within-source sampler orders that pool. So a batch holds the sources in their shares up to chance, and
`NoDuplicates` keeps texts apart across sources too. Where a mixer asks for more rows of a source than it has,
whole passes over it come first; what is left of a pass is drawn in pseudo-random order.

Where a source is read file by file, the pool has a special order (`MixedFiles`): it goes through the
windows of files of the source that has most of them, and through all others in step with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from inbatch.data.plan.permutation import FilesRange, KeyedPermutation, derive_key
from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.data.plan.samplers.base import Epoch, check_sources, open_pool
from inbatch.data.plan.samplers.lists import merge
from inbatch.data.plan.samplers.mixed_files import MixedFiles
from inbatch.data.plan.samplers.pools import SourcePool, WithinSource, files_range
from inbatch.data.ragged import RaggedValues
from inbatch.errors import ConfigError


@dataclass(frozen=True, eq=False)
class MixedPool:
    """``counts[s]`` rows of source s, one source after the other; also the `Mixture` of the plan."""

    sources: tuple[SourceInfo, ...]
    counts: tuple[int, ...]
    key: int

    @property
    def name(self) -> str:
        """Names of all sources."""
        return "+".join(source.name for source in self.sources)

    @property
    def num_rows(self) -> int:
        """Rows of all sources."""
        return sum(self.counts)

    @property
    def has_keys(self) -> bool:
        """True if any source has keys."""
        return any(source.keys is not None for source in self.sources)

    def file_order(self, key: int) -> MixedFiles | None:
        """The order of a pool with a source that is read file by file."""
        if not self._has_files:
            return None
        bounds = max(map(self._bounds, self.sources, self.counts), key=len)
        return MixedFiles(
            np.stack(
                [
                    start + count * bounds // bounds[-1]
                    for start, count in zip(self._starts, self.counts)
                ]
            ),
            key,
        )

    def split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Common numbers -> source and row inside it, each int64 [n]."""
        sources = np.searchsorted(self._starts, rows, side="right") - 1
        inside = rows - self._starts[sources]
        for number, source in enumerate(self.sources):
            here = sources == number
            inside[here] = self._row_of(source, self.counts[number], inside[here])
        return sources, inside

    @property
    def mean_values(self) -> float:
        """Values of a row on average, of the sources with lists."""
        means = [pool.mean_values for pool in self._pools]
        lists = [count for mean, count in zip(means, self.counts) if mean]
        return float(np.average(list(filter(None, means)), weights=lists)) if lists else 0

    def values(self, rows: np.ndarray) -> np.ndarray | RaggedValues:
        """Hashes (and keys) of rows of all sources, uint64 [n, V], or as many as each row has."""
        sources, inside = self.split(rows)
        parts = [pool.values(inside[sources == number]) for number, pool in enumerate(self._pools)]
        if not self.mean_values:
            self._check_widths(parts)
        return merge(parts, sources)

    def _check_widths(self, parts: Sequence[np.ndarray | RaggedValues]) -> None:
        widths = {
            pool.name: part.shape[1]
            for pool, part in zip(self._pools, parts)
            if isinstance(part, np.ndarray)
        }
        if len(set(widths.values())) > 1:
            raise ConfigError(
                "sampler.mixed",
                f"needs equal numbers of text columns and keys in all sources ({widths})",
                "give them the same columns, or set sampler.mixed=false",
                value=True,
            )

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *self.counts[:-1]])

    @cached_property
    def _pools(self) -> list[SourcePool]:
        return [SourcePool(source) for source in self.sources]

    @property
    def _has_files(self) -> bool:
        return any(source.stream is not None for source in self.sources)

    def _bounds(self, source: SourceInfo, count: int) -> np.ndarray:
        """Bounds of the windows of files in the rows of a source, over all its passes."""
        bounds = [0, count]
        if source.stream is not None:
            for number, first in enumerate(range(0, count, source.num_rows)):
                order = files_range(source.stream, self._key_of(source, number))
                bounds += [first + last for _, last in order.windows]
        return np.unique(np.minimum(bounds, count))

    def _row_of(self, source: SourceInfo, count: int, numbers: np.ndarray) -> np.ndarray:
        passes, places = np.divmod(numbers, source.num_rows)
        for number in np.unique(passes).tolist():
            whole = number < count // source.num_rows
            if not whole or self._has_files:  # else the sampler shuffles all of the pass
                here = passes == number
                places[here] = self._order(source, number)(places[here])
        return places

    def _order(self, source: SourceInfo, number: int) -> KeyedPermutation | FilesRange:
        """The order in which a pass goes through a source."""
        key = self._key_of(source, number)
        if source.stream is None:
            return KeyedPermutation(source.num_rows, key)
        return files_range(source.stream, key)

    def _key_of(self, source: SourceInfo, number: int) -> int:
        return derive_key(self.key, source.name, number)


def mixed_plan(
    within: WithinSource, sources: Sequence[SourceInfo], counts: Sequence[int], epoch: Epoch
) -> Plan:
    """A plan of batches that hold rows of all sources, ``counts[s]`` rows of source s in the epoch.

    In `Plan.skipped` each source has the rows that were not drawn, and the joined names have the
    rows that were drawn and found no place.
    """
    pool = MixedPool(tuple(sources), tuple(counts), epoch.key("mixed"))
    stream = open_pool(
        within,
        pool,
        batch_rows=epoch.global_batch_size,
        key=epoch.key("mixed", pool.name),
        drop_last=epoch.drop_last,
    )
    skipped = {
        source.name: max(source.num_rows - count, 0) for source, count in zip(sources, counts)
    }
    lost = pool.num_rows - stream.num_rows_in(stream.num_batches)
    skipped[pool.name] = skipped.get(pool.name, 0) + lost
    return Plan(
        epoch=epoch.number,
        names=tuple(source.name for source in sources),
        streams=(stream,),
        source_of_step=np.zeros(stream.num_batches, dtype=np.int64),
        skipped=skipped,
        mixture=pool,
    )


def check_mixed(
    sources: Sequence[SourceInfo], batch_sizes: Mapping[str, int] | None, epoch: Epoch
) -> None:
    """Refuse settings that have no meaning where a batch holds all sources."""
    check_sources(sources)
    if epoch.global_batch_size < 1:
        raise ConfigError(
            "global_batch_size", "is below 1", "set at least 1", value=epoch.global_batch_size
        )
    if batch_sizes:
        raise ConfigError(
            "sampler.batch_sizes",
            "needs batches of one source, but sampler.mixed=true",
            "set sampler.mixed=false, or remove batch_sizes",
            value=dict(batch_sizes),
        )
