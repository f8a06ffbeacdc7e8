"""Local embeddings -> global candidates; the only collectives of a training step."""

from inbatch.gather.collectives import (
    PendingMax,
    all_gather_rows,
    max_over_ranks,
    sum_over_ranks,
)
from inbatch.gather.gather import Gather, GlobalGather, LocalGather, Rows, split_rows
from inbatch.gather.ring import RowsRing

__all__ = [
    "Gather",
    "GlobalGather",
    "LocalGather",
    "PendingMax",
    "Rows",
    "RowsRing",
    "all_gather_rows",
    "max_over_ranks",
    "split_rows",
    "sum_over_ranks",
]
