"""The order of a mixture with sources that are read file by file.

Shape letters: S sources, W windows, n positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from inbatch.data.plan.permutation import KeyedPermutation, derive_key, slice_windows


@dataclass(frozen=True, eq=False)
class MixedFiles:
    """An order of the numbers of a `MixedPool`, in windows that hold the sources in their shares.

    The numbers of a window are permuted among themselves, so a batch reads what one window holds, or two.

    bounds_SW: window w holds the numbers ``bounds[s, w] .. bounds[s, w + 1] - 1`` of each source s,
        int64 [S, W + 1].
    """

    bounds_SW: np.ndarray
    key: int

    @property
    def num_rows(self) -> int:
        """Rows of all sources."""
        return int(self._starts[-1])

    @cached_property
    def windows(self) -> list[tuple[int, int]]:
        """First position of each window, and the first after it."""
        return list(pairwise(self._starts.tolist()))

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Numbers [stop - start] int64 at positions ``start .. stop - 1``."""
        return slice_windows(self._starts, start, stop, self._numbers_of_window)

    @cached_property
    def _starts(self) -> np.ndarray:
        """First position of each window, int64 [W + 1]."""
        return (self.bounds_SW - self.bounds_SW[:, :1]).sum(axis=0)

    def _numbers_of_window(self, window: int, positions: np.ndarray) -> np.ndarray:
        start, stop = self.windows[window]
        inside = KeyedPermutation(stop - start, derive_key(self.key, "mixed", window))
        places = inside(positions - start)  # of a window in which one source follows the other
        first, last = self.bounds_SW[:, window], self.bounds_SW[:, window + 1]
        ends = np.cumsum(last - first)
        source_n = np.searchsorted(ends, places, side="right")
        return (last - ends)[source_n] + places
