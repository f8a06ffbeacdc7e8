"""The flat arrays of rows with lists as prepared folders and indexes hold them, and how parts are joined.

Shape letters: C text columns, N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inbatch.data.sources.cached import Allocate
from inbatch.data.sources.prepared import (
    CONFLICT_HASHES,
    CONFLICT_OFFSETS,
    POSITIVE_COUNTS,
    TEXT_HASHES,
    TEXT_LENGTHS,
    TEXT_OFFSETS,
)
from inbatch.data.sources.ragged_rows import RaggedRows

OFFSETS = (TEXT_OFFSETS, CONFLICT_OFFSETS)
NAMES = (TEXT_HASHES, TEXT_LENGTHS, CONFLICT_HASHES, POSITIVE_COUNTS, *OFFSETS)


def arrays_of(ragged: RaggedRows) -> dict[str, np.ndarray]:
    """All of them, by name."""
    hashes, conflicts = ragged.hashes(), ragged.conflict_hashes()
    return {
        TEXT_HASHES: hashes.values,
        TEXT_OFFSETS: hashes.offsets,
        TEXT_LENGTHS: ragged.lengths().values,
        POSITIVE_COUNTS: ragged.positive_counts(),
        CONFLICT_HASHES: conflicts.values,
        CONFLICT_OFFSETS: conflicts.offsets,
    }


def arrays_of_columns(
    name: str, arrays: Mapping[str, np.ndarray], empty: Allocate = np.empty
) -> np.ndarray:
    """One of them for rows without lists, each of whose texts stands in a column of its own.

    Args:
        name: of the array.
        arrays: hashes, and lengths if they are asked for, of the columns, [C, N], and scores of documents,
            [C - 1, N].
        empty: gives room for it.
    """
    num_columns, num_rows = arrays[TEXT_HASHES].shape
    if name in OFFSETS:
        return np.arange(num_rows + 1) * (num_columns if name == TEXT_OFFSETS else 2)
    if name == POSITIVE_COUNTS:
        return np.ones(num_rows, np.int32)
    columns = arrays[TEXT_HASHES][:2] if name == CONFLICT_HASHES else arrays[name]
    out = empty(columns.size, columns.dtype.type)
    out.reshape(num_rows, len(columns))[:] = columns.T
    return out


def join(
    name: str,
    parts: Sequence[np.ndarray],
    allocate: Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray] = np.empty,
) -> np.ndarray:
    """An array of all rows, from those of parts of them.

    Args:
        name: Of the array.
        parts: [..., n] each; of offsets [n + 1], counted from the first text of the part.
        allocate: Gives the array for a shape and a type: in memory, or mapped from a file.
    """
    is_offsets = name in OFFSETS
    extra = int(is_offsets)
    length = sum(part.shape[-1] - extra for part in parts) + extra
    joined = allocate((*parts[0].shape[:-1], length), parts[0].dtype)
    start = last = 0
    for part in parts:
        stop = start + part.shape[-1]
        joined[..., start:stop] = part + part.dtype.type(last) if is_offsets else part
        start = stop - extra
        if is_offsets:
            last = int(joined[stop - 1])
    return joined
