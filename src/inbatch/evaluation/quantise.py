"""Embeddings in fewer bits: the formulas of sentence-transformers' `quantize_embeddings`; pure functions.

Shape letters: N embeddings, D dimension, B = ceil(D / 8) bytes.

| precision | stored | a value |
|---|---|---|
| float32 | float32 [N, D] | itself |
| int8, uint8 | [N, D] | its place among 256 equal steps between the least and the largest of its dimension |
| binary, ubinary | int8, uint8 [N, B] | whether it is above 0, eight to a byte |
"""

from __future__ import annotations

import numpy as np

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
WITH_RANGES = ("int8", "uint8")
_STEPS = 255


def ranges_of(embeddings_ND: np.ndarray) -> np.ndarray:
    """Least and largest value of each dimension: float32 [2, D]; N is at least 1."""
    return np.stack([embeddings_ND.min(axis=0), embeddings_ND.max(axis=0)])


def wider(first_2D: np.ndarray | None, second_2D: np.ndarray) -> np.ndarray:
    """The ranges that hold those of two sets of embeddings; None for none yet."""
    if first_2D is None:
        return second_2D
    return np.stack([np.minimum(first_2D[0], second_2D[0]), np.maximum(first_2D[1], second_2D[1])])


def quantise(
    embeddings_ND: np.ndarray, precision: str, *, ranges_2D: np.ndarray | None = None
) -> np.ndarray:
    """Embeddings as they are stored in a precision.

    Args:
        embeddings_ND: float32, finite.
        precision: one of PRECISIONS.
        ranges_2D: of `ranges_of`, for int8 and uint8, which need them: those of the corpus, so that queries
            have the same steps. A value outside of them gets the first or the last step.

    Returns:
        See the table above.
    """
    if precision == "float32":
        return embeddings_ND.astype(np.float32, copy=False)
    if precision in WITH_RANGES:
        assert ranges_2D is not None
        starts, ends = ranges_2D.astype(np.float32, copy=False)
        steps = (ends - starts) / _STEPS
        steps = np.where(steps == 0, 1, steps)
        places = np.clip(np.floor((embeddings_ND - starts) / steps), 0, _STEPS)
        return places.astype(np.uint8) if precision == "uint8" else (places - 128).astype(np.int8)
    bits = np.packbits(embeddings_ND > 0, axis=-1)
    return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)


def compared(stored: np.ndarray, precision: str, *, dimension: int) -> np.ndarray:
    """The numbers that similarities of stored embeddings are computed of: float32 [N, D].

    Those of sentence-transformers' evaluators: the steps of int8 and uint8 as they are, bits as 0 and 1.

    Args:
        stored: of `quantise`.
        precision: of them.
        dimension: D.
    """
    if precision == "binary":
        stored = (stored.astype(np.int16) + 128).astype(np.uint8)
    if precision in ("binary", "ubinary"):
        stored = np.unpackbits(stored, axis=-1, count=dimension)
    return stored.astype(np.float32, copy=False)
