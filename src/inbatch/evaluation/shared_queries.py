"""Which queries a rank searches for, in whole tiles, so that hits do not depend on the number of ranks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch import Tensor

from inbatch.evaluation.base import Encode, SharesSearch
from inbatch.evaluation.search import tile_rows


@dataclass(frozen=True, slots=True)
class SharedQueries:
    """Queries of this rank among those of all.

    own: rows of this rank.
    counts: rows of each rank.
    ranks: what joins their results; None for one process.
    """

    own: slice
    counts: tuple[int, ...]
    ranks: SharesSearch | None

    def joined(self, rows: Tensor) -> Tensor:
        """Rows of all queries, of those of this rank."""
        return rows if self.ranks is None else self.ranks.join(rows, self.counts)


def share_queries(encode: Encode, num_queries: int) -> SharedQueries:
    """Deal tiles of queries to ranks, or take all where `encode` is not of several."""
    if not isinstance(encode, SharesSearch):
        return SharedQueries(slice(0, num_queries), (num_queries,), None)
    starts = [0, *accumulate(tile_rows(num_queries))]
    world, tiles = encode.world_size, len(starts) - 1
    cuts = [starts[tiles * rank // world] for rank in range(world + 1)]
    counts = tuple(stop - start for start, stop in pairwise(cuts))
    return SharedQueries(slice(cuts[encode.rank], cuts[encode.rank + 1]), counts, encode)
