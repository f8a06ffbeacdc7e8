"""Local embeddings -> global candidates; the collectives of a training step."""

from inbatch.gather.collectives import (
    PendingMax,
    all_gather_rows,
    average_gradients,
    barrier,
    counts_of_ranks,
    largest,
    max_over_ranks,
    rank_and_world_size,
    sum_over_ranks,
)
from inbatch.gather.gather import Gather, GlobalGather, LocalGather, Rows, split_rows
from inbatch.gather.ring import RowsRing
from inbatch.gather.shards import local_part, whole

__all__ = [
    "Gather",
    "GlobalGather",
    "LocalGather",
    "PendingMax",
    "Rows",
    "RowsRing",
    "all_gather_rows",
    "average_gradients",
    "barrier",
    "counts_of_ranks",
    "largest",
    "local_part",
    "max_over_ranks",
    "rank_and_world_size",
    "split_rows",
    "sum_over_ranks",
    "whole",
]
