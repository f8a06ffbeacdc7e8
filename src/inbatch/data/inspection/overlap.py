"""Texts that two columns of a source have in common."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from inbatch.data.inspection.texts import hashes_by_column
from inbatch.data.inspection.values import Overlap
from inbatch.data.report.subsample import one_in, subsample
from inbatch.data.sources.source import Source


def overlaps(source: Source) -> tuple[Overlap, ...]:
    """Distinct texts that each pair of columns shares, where there are any; estimates for many rows."""
    by_column = hashes_by_column(source)
    factor = one_in(max(map(len, by_column.values())))
    distinct = {
        column: np.unique(subsample(hashes.__getitem__, len(hashes), keep_one_in=factor)[1])
        for column, hashes in by_column.items()
    }
    found = []
    for (left, left_U), (right, right_U) in combinations(distinct.items(), 2):
        count = factor * len(np.intersect1d(left_U, right_U, assume_unique=True))
        if count:
            found.append(Overlap(left, right, count))
    return tuple(found)
