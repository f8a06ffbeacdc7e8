"""Texts that two columns of a source have in common. Shape letters: C text columns, N rows."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from inbatch.data.inspection.values import Overlap
from inbatch.data.report.subsample import one_in, subsample
from inbatch.data.sources.source import Source


def overlaps(source: Source) -> tuple[Overlap, ...]:
    """Distinct texts that each pair of columns shares, where there are any; estimates for many rows."""
    factor = one_in(source.num_rows)
    distinct = [
        np.unique(subsample(hashes_N.__getitem__, source.num_rows, keep_one_in=factor)[1])
        for hashes_N in source.text_hashes()
    ]
    found = []
    for (left, left_U), (right, right_U) in combinations(zip(source.columns, distinct), 2):
        count = factor * len(np.intersect1d(left_U, right_U, assume_unique=True))
        if count:
            found.append(Overlap(left, right, count))
    return tuple(found)
