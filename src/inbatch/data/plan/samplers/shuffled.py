"""Plain shuffled batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inbatch.data.plan.permutation import ShuffledRange
from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.data.plan.samplers.base import Epoch, EpochSampler, single_plan
from inbatch.data.plan.samplers.pools import FileOrder, Pool
from inbatch.errors import ConfigError

Order = ShuffledRange | FileOrder

WINDOW_BATCHES = 64  # blocks are mixed over at least this many batches


@dataclass(frozen=True)
class Shuffled(EpochSampler):
    """Each row once an epoch, in pseudo-random order (sentence-transformers' ``batch_sampler``).

    block_rows: 1 shuffles rows one by one. More shuffles blocks of this many consecutive rows, and then
        rows within windows of 4,096 blocks or more, so that slow storage is read in runs; rows that are
        neighbours in the data then share a batch more often.
    """

    block_rows: int = 1

    def __post_init__(self) -> None:
        check_block_rows(self.block_rows)

    def open(self, pool: Pool, *, batch_rows: int, key: int, drop_last: bool) -> ShuffledBatches:
        """One pass over a pool.

        Raises:
            ConfigError: The rows have keys, which nothing would look at.
        """
        if pool.has_keys:
            raise ConfigError(
                "columns.key",
                f"of source '{pool.name}' keeps rows apart only with NoDuplicates",
                "set sampler=no_duplicates (or NoDuplicates as 'within' of a mixer), or name no key",
            )
        order = order_of(pool, key=key, block_rows=self.block_rows, batch_rows=batch_rows)
        return ShuffledBatches(order, batch_rows, drop_last)

    def plan_epoch(self, sources: Sequence[SourceInfo], epoch: Epoch) -> Plan:
        """The batches of an epoch of one source."""
        return single_plan(self, sources, epoch)


@dataclass(frozen=True)
class ShuffledBatches:
    """Consecutive slices of an order."""

    order: Order
    batch_rows: int
    drop_last: bool

    @property
    def num_batches(self) -> int:
        """Full batches, and the short one unless it is dropped."""
        full, rest = divmod(self.order.num_rows, self.batch_rows)
        return full + (rest > 0 and not self.drop_last)

    def rows(self, index: int) -> np.ndarray:
        """Row numbers of a batch."""
        start = index * self.batch_rows
        return self.order.slice(start, min(start + self.batch_rows, self.order.num_rows))

    def num_rows_in(self, num_batches: int) -> int:
        """Rows in the first `num_batches` batches."""
        return min(num_batches * self.batch_rows, self.order.num_rows)


def order_of(pool: Pool, *, key: int, block_rows: int, batch_rows: int) -> Order:
    """The order of a pool's rows, which suits where they lie.

    Raises:
        ConfigError: blocks of rows for a pool that is read file by file.
    """
    by_file = pool.file_order(key)
    if by_file is not None:
        if block_rows > 1:
            raise ConfigError(
                "sampler.block_rows",
                f"needs random access, but the files of '{pool.name}' are read one by one",
                "set 1",
                value=block_rows,
            )
        return by_file
    return ShuffledRange(pool.num_rows, key, block_rows, window_rows=WINDOW_BATCHES * batch_rows)


def check_block_rows(block_rows: int) -> None:
    """Refuse blocks without rows."""
    if block_rows < 1:
        raise ConfigError(
            "sampler.block_rows",
            "is below 1",
            "set 1 to shuffle row by row, or more",
            value=block_rows,
        )
