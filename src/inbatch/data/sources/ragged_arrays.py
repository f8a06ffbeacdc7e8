"""The flat arrays of rows with lists as prepared folders and indexes hold them, and how parts are joined.

Shape letters: C text columns, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        arrays: hashes, and lengths if they are asked for, of the columns, [C, N].
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


def join(name: str, parts: Sequence[np.ndarray]) -> np.ndarray:
    """An array of all rows, from those of parts of them."""
    if name not in OFFSETS:
        return np.concatenate(parts, axis=-1)
    lasts = np.cumsum([0, *(part[-1] for part in parts)])
    moved = [part[1:] + last for part, last in zip(parts, lasts)]
    return np.concatenate([parts[0][:1], *moved])
