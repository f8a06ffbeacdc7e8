"""Arrays that are computed once, and then mapped from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from inbatch.files import replaced_file

#: Gives an empty array of a length and a type: in memory, or mapped from a file.
Allocate = Callable[[int, type], np.ndarray]


def cached_array(path: Path | None, compute: Callable[[Allocate], np.ndarray]) -> np.ndarray:
    """The array of a file, computed and written there where it is not.

    Args:
        path: of the file; None keeps the array in memory.
        compute: gives the array. One that it fills after asking its argument for it is never in memory
            as a whole.
    """
    if path is None:
        return compute(np.empty)
    if not path.exists():  # several ranks may do so at once; they write the same
        with replaced_file(path) as file:

            def mapped(length: int, kind: type) -> np.ndarray:
                return np.lib.format.open_memmap(file.name, "w+", np.dtype(kind), (length,))

            values = compute(mapped)
            if isinstance(values, np.memmap):
                values.flush()
            else:
                np.save(file, values)
    loaded: np.ndarray = np.load(path, mmap_mode="r")
    return loaded
