"""Approximate search by faiss, for corpora too large to be searched exactly.

The index finds candidates; their scores are then computed as those of the exact search, so what a filter
sees is the same. One process builds the index from memory-mapped blocks and writes it; all read it. It
holds all embeddings in memory on each process (an IVF index of `Flat` ones 4 D bytes a document;
`IVF4096,PQ48` is far smaller).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, final

import numpy as np

from inbatch.errors import ConfigError
from inbatch.files import replaced_file
from inbatch.mining.search import BLOCK, SPARE, Hits, best_of, exact_scores
from inbatch.mining.vectors import Vectors

_TRAINED_ON = 262_144  # embeddings from which the lists of an index are learned, at most
_PROBES = 32


def load_faiss() -> Any:
    """The library, which few need and which is therefore an extra.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise ConfigError(
            "mine.search",
            "needs faiss, which is not installed",
            "run `pip install 'inbatch[faiss]'`, or set mine.search=exact",
            value="faiss",
        ) from None
    return faiss


def build_index(path: Path, documents: Vectors, *, normalize: bool, factory: str | None) -> None:
    """Write an index of all documents, unless it is there.

    Args:
        path: of the file.
        documents: what is found.
        normalize: scores are cosines, else dot products.
        factory: see `MineKeys.faiss_index`.

    Raises:
        ConfigError: faiss does not know this kind of index.
    """
    if path.is_file():  # of this mining, as the claim of the folder has made sure
        return
    faiss = load_faiss()
    size = len(documents)
    default = f"IVF{max(1, min(4 * math.isqrt(size), size // 39))},Flat"
    try:
        index = faiss.index_factory(
            documents.dimension, factory or default, faiss.METRIC_INNER_PRODUCT
        )
    except RuntimeError:
        raise ConfigError(
            "mine.faiss_index",
            "is not known to faiss",
            "set one such as IVF4096,Flat or HNSW32",
            value=factory,
        ) from None
    if not index.is_trained:
        spaced = np.unique(np.linspace(0, size - 1, min(size, _TRAINED_ON)).astype(np.int64))
        index.train(_rows(documents.take(spaced), normalize))
    for start in range(0, size, BLOCK):
        index.add(_rows(documents.rows(start, min(start + BLOCK, size)), normalize))
    with replaced_file(path) as file:
        faiss.write_index(index, file.name)


@final
class FaissSearch:
    """The best documents of queries by an index.

    Args:
        path: of the index.
        documents: what it holds.
        normalize: scores are cosines, else dot products.
        probes: see `MineKeys.faiss_probes`; None for 32.

    Raises:
        ConfigError: the file does not hold an index of these documents.
    """

    def __init__(
        self, path: Path, documents: Vectors, *, normalize: bool, probes: int | None
    ) -> None:
        faiss = load_faiss()
        self._documents, self._normalize = documents, normalize
        self._index = _read(faiss, path, documents)
        inverted = faiss.try_extract_index_ivf(self._index)
        if inverted is not None:
            inverted.nprobe = min(probes or _PROBES, inverted.nlist)

    def __call__(self, queries_QD: np.ndarray, k: int) -> Hits:
        """See `search.search`; a query may have fewer hits."""
        wide = min(k + SPARE, len(self._documents))
        _, found = self._index.search(_rows(queries_QD, self._normalize), wide)
        found = np.asarray(found, np.int64)
        scores = exact_scores(queries_QD, self._documents, found, normalize=self._normalize)
        return best_of(found, scores, k)


def _read(faiss: Any, path: Path, documents: Vectors) -> Any:
    try:
        index = faiss.read_index(str(path))
        damaged = (index.ntotal, index.d) != (len(documents), documents.dimension)
    except RuntimeError:
        damaged = True
    if damaged:
        raise ConfigError(str(path), "is damaged", "delete it: it will be built anew")
    return index


def _rows(rows_nD: np.ndarray, normalize: bool) -> np.ndarray:
    rows_nD = np.ascontiguousarray(rows_nD, np.float32)
    if not normalize:
        return rows_nD
    return rows_nD / np.maximum(np.linalg.norm(rows_nD, axis=1, keepdims=True), 1e-12)
