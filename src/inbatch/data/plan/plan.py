"""The plan: which rows form which global batch, as a pure function of (data, seed, epoch, global batch size).

::

    SourceInfo, ...  ->  Sampler.plan  ->  Plan  ->  GlobalBatch  ->  slice_rows  ->  this rank's rows

Rank, world size and number of workers never enter: every process computes the same plan, without
communication, and cuts its own slice out of each global batch. So 1, 2 or 8 ranks train on the same batches,
all ranks are on the same source at a step, and a run may resume with another world size. A batch is found
from its number at a cost that does not grow with the number, so a place in an epoch is one integer.
fingerprint.py describes the inputs of a plan, which a resumed run compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, final

import numpy as np

from inbatch.data.ragged import RaggedValues

_LOOKED_AT = 16  # batches of which a share is estimated


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Rows of each file of a streamed source; `buffer_files` of the files are read at a time."""

    file_rows: tuple[int, ...]
    buffer_files: int


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """The facts about a source that a plan is made from: C text columns, N rows.

    hashes: gives 64-bit hashes of all texts, uint64 [C, N], equal where texts are; may be memory-mapped. None
        for rows with lists.
    conflicts: of rows with lists, gives the hashes of each row's query and positives, and of no negative: two
        equal negatives harm nothing, and popular ones would leave many rows without a batch.
    ragged: of rows with lists, gives the hashes of all texts of each row; no plan depends on the negatives,
        but a resumed run needs the same.
    lists: how a batch chooses from the lists, as plain values; likewise.
    keys: gives a 64-bit number for each row, uint64 [N] (a product, a cluster): rows with one key are
        kept out of each other's batches by samplers that avoid duplicates.
    stream: for a source that is read file by file.
    labels: gives the label of each row, [N]; no plan depends on them, but a resumed run needs the same.
    scores: gives the score of each document, [C - 1, N], of rows with lists flat; likewise.
    """

    name: str
    num_rows: int
    hashes: Callable[[], np.ndarray] | None = None
    keys: Callable[[], np.ndarray] | None = None
    stream: StreamInfo | None = None
    labels: Callable[[], np.ndarray] | None = None
    conflicts: Callable[[], RaggedValues] | None = None
    ragged: Callable[[], RaggedValues] | None = None
    lists: Mapping[str, Any] | None = None
    scores: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True, slots=True)
class GlobalBatch:
    """The rows that all ranks together train on at one step.

    Normally they belong to one source. A batch of several sources has ``source = -1`` and names the source of
    each row in `sources`; whether their columns agree is for the caller to check.
    """

    step: int
    source: int
    rows: np.ndarray  # int64 [B], row numbers inside the source
    sources: np.ndarray | None = None  # int64 [B], for a batch of several sources


class PlannedSlice(NamedTuple):
    """The part of a global batch that one rank reads."""

    step: int  # position in the epoch
    source: int  # number of the source; -1 for several
    rows: np.ndarray  # int64 [B], row numbers of this rank inside the source
    num_global_rows: int  # rows over all ranks
    sources: np.ndarray | None = None  # int64 [B], source of each row, where there are several
    epoch: int = 0  # number of the plan, which decides the documents that are drawn from lists
    documents_of_ranks: tuple[int, ...] | None = None  # of rows with lists


class BatchStream(Protocol):
    """The batches of one source (or of several as one), by number, each at the same cost."""

    @property
    def num_batches(self) -> int:
        """Batches there are."""

    def rows(self, index: int) -> np.ndarray:
        """Row numbers of a batch, int64 [B]."""

    def num_rows_in(self, num_batches: int) -> int:
        """Rows in the first `num_batches` batches."""


class Mixture(Protocol):
    """Rows of several sources under one numbering."""

    def split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Common numbers -> source and row inside it, each int64 [B]."""


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """The global batches of one epoch.

    streams: one for each source; a single one for a mixture.
    source_of_step: number of the stream at each step, int64 [S].
    skipped: rows by source name that are in no batch of the epoch: cut off by `drop_last` or by the
        sampler's end of an epoch, or in conflict with every batch that had room.
    """

    epoch: int
    names: tuple[str, ...]
    streams: tuple[BatchStream, ...]
    source_of_step: np.ndarray
    skipped: dict[str, int]
    mixture: Mixture | None = None

    @property
    def num_steps(self) -> int:
        """Exact number of global batches."""
        return len(self.source_of_step)

    def batch(self, step: int) -> GlobalBatch:
        """The global batch of a step.

        Raises:
            IndexError: the epoch is over.
        """
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} of an epoch of {self.num_steps} steps")
        source = int(self.source_of_step[step])
        rows = self.streams[source].rows(int(self._index_of_step[step]))
        if self.mixture is None:
            return GlobalBatch(step, source, rows)
        sources, rows = self.mixture.split(rows)
        return GlobalBatch(step, -1, rows, sources)

    def __iter__(self) -> Iterator[GlobalBatch]:
        return map(self.batch, range(self.num_steps))

    @cached_property
    def _index_of_step(self) -> np.ndarray:
        """Number of each step's batch inside its stream, int64 [S]."""
        index = np.empty(self.num_steps, dtype=np.int64)
        for source in range(len(self.streams)):
            steps = np.flatnonzero(self.source_of_step == source)
            index[steps] = np.arange(len(steps))
        return index


class Sampler(Protocol):
    """Makes plans; a frozen dataclass of choices (`samplers.base.EpochSampler` is a convenient base)."""

    def plan(
        self,
        sources: Sequence[SourceInfo],
        *,
        global_batch_size: int,
        seed: int,
        epoch: int,
        drop_last: bool,
    ) -> Plan:
        """The batches of an epoch; `drop_last` leaves out batches that are not full."""


def duplicate_share(
    hashes: np.ndarray | RaggedValues,
    plan: Plan,
    *,
    source: str | None = None,
) -> float:
    """Share of a plan's batches that hold a text in two rows; 16 batches spread over the epoch are looked at.

    Each of them is a false negative of an in-batch loss. Equality inside one row does not count.

    Args:
        hashes: of the source, or the conflicts of one with lists; see `SourceInfo`.
        plan: Any plan over that source; steps of other sources are passed over.
        source: Name of the source; None where the plan has one.
    """
    batches = looked_at(plan, source=source)
    return float(np.mean([_repeats_text(hashes, rows) for rows in batches])) if batches else 0.0


def looked_at(plan: Plan, *, source: str | None = None, most: int = _LOOKED_AT) -> list[np.ndarray]:
    """Rows of a source in each of some batches, at most `most`, spread over the epoch."""
    number = 0 if source is None else plan.names.index(source)
    if plan.mixture is None:
        steps = np.flatnonzero(plan.source_of_step == number)
    else:
        steps = np.arange(plan.num_steps)
    if len(steps) == 0:
        return []
    chosen = np.unique(np.linspace(0, len(steps) - 1, most).astype(np.int64))
    batches = [plan.batch(step) for step in steps[chosen].tolist()]
    return [
        batch.rows if batch.sources is None else batch.rows[batch.sources == number]
        for batch in batches
    ]


def _repeats_text(hashes: np.ndarray | RaggedValues, rows_R: np.ndarray) -> bool:
    """Tell whether any of these rows holds a value of another one."""
    if isinstance(hashes, RaggedValues):
        flat, offsets = hashes.take(rows_R)
        owners = np.repeat(np.arange(len(rows_R)), np.diff(offsets))
    else:
        flat = np.asarray(hashes)[:, rows_R].T.reshape(-1)
        owners = np.repeat(np.arange(len(rows_R)), len(hashes))
    order = np.argsort(flat, kind="stable")  # cells of one row stay side by side
    flat, owners = flat[order], owners[order]
    return bool(((flat[1:] == flat[:-1]) & (owners[1:] != owners[:-1])).any())
