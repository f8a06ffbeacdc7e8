"""Batches that hold several rows of each of their labels.

Shape letters: N rows, n rows asked for, K rows of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inbatch.data.plan.permutation import derive_key, keyed_hash
from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.data.plan.samplers.base import Epoch, EpochSampler, single_plan
from inbatch.data.plan.samplers.pools import Pool, SourcePool
from inbatch.errors import ConfigError


@dataclass(frozen=True)
class GroupByLabel(EpochSampler):
    """Groups of `rows_per_label` rows of one label, the groups of different labels in turn.

    Each batch has several labels, and of each a whole number of groups, as losses need that find triplets in
    a batch. In each round every label gives one group, in an order of the round. The rounds end when
    only one label has groups left. Rows that are left then, those that make no whole group of their
    label, and labels with fewer rows than a group, are in `Plan.skipped`; of a label others in each epoch.

    With ``rows_per_label=2`` batches are made like those of sentence-transformers'
    GroupByLabelBatchSampler, but over all ranks. Needs labels, and 8 bytes a row.
    """

    rows_per_label: int = 2

    def __post_init__(self) -> None:
        if self.rows_per_label < 2:
            raise ConfigError(
                "sampler.rows_per_label",
                "leaves a row without another of its label",
                "set 2 or more",
                value=self.rows_per_label,
            )

    def open(self, pool: Pool, *, batch_rows: int, key: int, drop_last: bool) -> GroupedBatches:
        """One pass over a pool.

        Raises:
            ConfigError: it has no labels, too few of them, or lies where rows are read file by file; or the
                batch is no multiple of the groups.
        """
        labels_N = _labels_of(pool)
        group = self.rows_per_label
        if batch_rows % group or batch_rows < 2 * group:
            raise ConfigError(
                "global_batch_size",
                f"does not hold two or more whole groups of {group} rows of a label",
                f"set a multiple of {group}, {2 * group} or more",
                value=batch_rows,
            )
        rows = grouped(labels_N, group=group, key=key, fixed=batch_rows == 2 * group)
        if not len(rows):
            raise ConfigError(
                "sampler",
                f"finds no two labels with {group} rows each in source '{pool.name}'",
                "name another label column, or set sampler=batch",
                value=type(self).__name__,
            )
        rest = len(rows) % batch_rows
        if rest and (drop_last or rest < 2 * group):
            rows = rows[: len(rows) - rest]
        return GroupedBatches(rows, batch_rows)

    def plan_epoch(self, sources: Sequence[SourceInfo], epoch: Epoch) -> Plan:
        """The batches of an epoch of one source."""
        return single_plan(self, sources, epoch)


@dataclass(frozen=True, eq=False)
class GroupedBatches:
    """Consecutive slices of some rows."""

    order: np.ndarray  # [n]
    batch_rows: int

    @property
    def num_batches(self) -> int:
        """Full batches, and a shorter last one where there is one."""
        return -(-len(self.order) // self.batch_rows)

    def rows(self, index: int) -> np.ndarray:
        """Row numbers of a batch."""
        return self.order[index * self.batch_rows : (index + 1) * self.batch_rows].astype(np.int64)

    def num_rows_in(self, num_batches: int) -> int:
        """Rows in the first `num_batches` batches."""
        return min(num_batches * self.batch_rows, len(self.order))


def grouped(labels_N: np.ndarray, *, group: int, key: int, fixed: bool) -> np.ndarray:
    """Rows in groups of one label, round by round; a pure function of its arguments.

    Args:
        labels_N: of all rows.
        group: rows of a group.
        key: decides the rows of each group, and the order of labels.
        fixed: whether labels keep their order in all rounds, without which two groups that follow each other
            over the end of a round may be of one label.
    """
    numbers_N = np.arange(len(labels_N), dtype=np.uint64)
    _, label_N, counts = np.unique(labels_N, return_inverse=True, return_counts=True)
    order_N = np.lexsort((keyed_hash(numbers_N, key=key), label_N))
    ends = np.cumsum(counts)
    place_N = np.arange(len(order_N)) - (ends - counts)[label_N[order_N]]  # among rows of the label
    groups = counts // group
    rounds = np.sort(groups)[-2] if len(groups) > 1 else 0
    round_N = place_N // group
    kept = round_N < np.minimum(groups, rounds)[label_N[order_N]]
    order_N, round_N = order_N[kept], round_N[kept]
    turn_N = label_N[order_N].astype(np.uint64)
    if not fixed:
        turn_N += round_N.astype(np.uint64) * np.uint64(len(counts))
    turns_N = keyed_hash(turn_N, key=derive_key(key, "turns"))
    return order_N[np.lexsort((turns_N, round_N))]  # stable, so that groups stay together


def num_lone_labels(labels_N: np.ndarray) -> int:
    """Labels of one row, which no row can be compared with."""
    return int((np.unique(labels_N, return_counts=True)[1] == 1).sum())


def _labels_of(pool: Pool) -> np.ndarray:
    source = pool.source if isinstance(pool, SourcePool) else None
    if source is None:
        raise ConfigError(
            "sampler.mixed",
            "puts rows of several sources in a batch, whose labels may mean different things",
            "set sampler.mixed=false",
            value=True,
        )
    if source.labels is None:
        raise ConfigError(
            "sampler",
            f"needs labels, and source '{pool.name}' has none",
            "name its label column, or set sampler=batch",
            value="GroupByLabel",
        )
    if source.stream is not None:
        raise ConfigError(
            "sampler",
            f"reads rows in the order of their labels, and the files of '{pool.name}' are read one by one",
            "prepare the data, or set data.train.streaming=false",
            value="GroupByLabel",
        )
    return source.labels()
