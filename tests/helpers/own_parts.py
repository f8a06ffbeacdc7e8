"""A sampler and an evaluator as a user would write them: no base class, known by `_target_` only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inbatch.data.plan.plan import Plan, SourceInfo
from inbatch.evaluation import Encode


class Slices(NamedTuple):
    """Consecutive rows of one source."""

    num_batches: int
    batch_rows: int

    def rows(self, index: int) -> np.ndarray:
        """Row numbers of a batch."""
        return np.arange(index * self.batch_rows, (index + 1) * self.batch_rows)

    def num_rows_in(self, num_batches: int) -> int:
        """Rows in the first `num_batches` batches."""
        return num_batches * self.batch_rows


@dataclass(frozen=True)
class InOrder:
    """The first rows of one source, without a shuffle."""

    max_batches: int = 3

    def plan(
        self,
        sources: Sequence[SourceInfo],
        *,
        global_batch_size: int,
        seed: int,
        epoch: int,
        drop_last: bool,
    ) -> Plan:
        """The same batches in each epoch."""
        (source,) = sources
        count = min(self.max_batches, source.num_rows // global_batch_size)
        return Plan(
            epoch=epoch,
            names=(source.name,),
            streams=(Slices(count, global_batch_size),),
            source_of_step=np.zeros(count, dtype=np.int64),
            skipped={source.name: source.num_rows - count * global_batch_size},
        )


class MeanNorm:
    """Mean length of some embeddings, which need not be one."""

    description = "Mean Norm"

    def __init__(self, texts: Sequence[str], *, name: str = "norm") -> None:
        self.texts, self.name = list(texts), name

    @property
    def primary_metric(self) -> str:
        """Full key of the mean."""
        return f"{self.name}_mean"

    def __call__(self, encode: Encode) -> dict[str, float]:
        """Embed and measure."""
        return {self.primary_metric: float(encode(self.texts, role=None).norm(dim=1).mean())}
