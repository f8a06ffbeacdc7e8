"""Exact top-k over stored embeddings, block by block.

A block of queries meets the documents in tiles of fixed size, in the order of their numbers. A tile's scores
are looked at once, by the largest of each run of `_RUN` of them: what is not above the query's k-th best so
far is never touched again. What is above goes to a buffer of keys (`hit_keys`), which is cut to the best k
as it fills. Documents come in ascending order, so one that equals the k-th best loses the tie, as it
should.

Products of float32 differ in their last digit from one place of a tile to another. So `SPARE` hits more than
k are looked for, all are scored again as float64 products of their own (`exact_scores`), and the best k by
these scores, and then by the smaller number, are the result. It depends neither on blocks nor on the device
unless more than `SPARE` documents are within that digit of the k-th.

Memory of a block: ``Q * TILE * 4`` bytes of scores, ``Q * (k + TILE) * 8`` of keys, ``BLOCK * D * 4`` of
documents, ``Q * D * 4`` of queries. With Q = 1024, k = 100 and D = 384 that is 8 + 18 + 13 + 2 MB.

Shape letters: Q queries of a block, N documents of a tile, K hits, D dimension, S runs with a hit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from inbatch.device.cpu_products import product
from inbatch.device.matmul_precision import exact_products
from inbatch.errors import ConfigError
from inbatch.evaluation.search import hit_keys, hit_ranks, no_hits
from inbatch.mining.vectors import Vectors

TILE = 2048  # documents whose scores are held at once
BLOCK = 8192  # documents that are read at once, a multiple of TILE
SPARE = 32
_RUN = 256  # scores of which the largest is looked at first; divides TILE
_EXACT_PAIRS = 2**14  # that are scored again at once


class Hits(NamedTuple):
    """The best documents of some queries, best first; where there are fewer, number -1 and score -inf."""

    numbers: np.ndarray  # int64 [Q, K]
    scores: np.ndarray  # float32 [Q, K]


def search(
    queries_QD: np.ndarray,
    documents: Vectors,
    k: int,
    *,
    normalize: bool,
    device: torch.device,
) -> Hits:
    """The k best documents of each query of a block.

    Args:
        queries_QD: embeddings, any floating type.
        documents: fewer than 2**32.
        k: of each query.
        normalize: scores are cosines, else dot products.
        device: where products are made.

    Raises:
        ConfigError: an embedding is not finite.
    """
    wide = min(k + SPARE, len(documents))
    queries = _scaled(torch.from_numpy(np.array(queries_QD, np.float32)).to(device), normalize)
    best = BestHits(len(queries), wide, device)
    with torch.inference_mode(), exact_products():
        for first, tile_ND in _tiles(documents, normalize, device):
            best.add(product(queries, tile_ND.T), first)
    found = hit_ranks(best.keys()).cpu().numpy()
    scores = exact_scores(queries_QD, documents, found, normalize=normalize)
    return best_of(found, scores, k)


def best_of(numbers_QK: np.ndarray, scores_QK: np.ndarray, k: int) -> Hits:
    """The k best of each row by score, and then by the smaller number."""
    order = np.lexsort((numbers_QK, -scores_QK), axis=1)[:, :k]
    return Hits(np.take_along_axis(numbers_QK, order, 1), np.take_along_axis(scores_QK, order, 1))


@final
class BestHits:
    """The best hits among the tiles so far.

    Args:
        num_queries: Q.
        k: hits that are kept of each query.
        device: of the scores.
    """

    def __init__(self, num_queries: int, k: int, device: torch.device) -> None:
        self._k = k
        self._keys = no_hits(num_queries, k + TILE, device=device)
        self._filled_Q = torch.full((num_queries,), k, device=device)
        self._floor_Q1 = torch.full((num_queries, 1), -torch.inf, device=device)
        self._num_new = 0

    def add(self, scores_QN: Tensor, first: int) -> None:
        """Take the scores of the documents from number `first` on, of which there are at most TILE."""
        row, column, scores = self._above(scores_QN)
        if not len(row):
            return
        counts_Q = torch.bincount(row, minlength=len(self._filled_Q))
        if int((self._filled_Q + counts_Q).max()) > self._keys.shape[1]:
            self._cut()
        place = self._filled_Q[row] + torch.arange(len(row), device=row.device)
        place -= (counts_Q.cumsum(0) - counts_Q)[row]
        self._keys[row, place] = hit_keys(scores, column + first)
        self._filled_Q += counts_Q
        self._num_new += len(row)
        if self._num_new > self._k * len(counts_Q) // 2:
            self._cut()

    def keys(self) -> Tensor:
        """Keys of the hits, best first, [Q, k]."""
        self._cut()
        return self._keys[:, : self._k].clone()

    def _above(self, scores_QN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column and score of what is above the floor, row by row."""
        num_columns = scores_QN.shape[1]
        if num_columns % _RUN:
            row, column = (scores_QN > self._floor_Q1).nonzero(as_tuple=True)
            return row, column, scores_QN[row, column]
        runs = scores_QN.view(len(scores_QN), -1, _RUN)
        row_S, run_S = (runs.amax(2) > self._floor_Q1).nonzero(as_tuple=True)
        some = runs[row_S, run_S]
        place, offset = (some > self._floor_Q1[row_S]).nonzero(as_tuple=True)
        return row_S[place], run_S[place] * _RUN + offset, some[place, offset]

    def _cut(self) -> None:
        """Keep the best k of each query, and raise the floor to the last of them."""
        filled = int(self._filled_Q.max())
        best = self._keys[:, :filled].topk(self._k, dim=1).values
        self._keys[:, : self._k] = best
        self._keys[:, self._k : filled] = no_hits(1, 1, device=best.device)
        self._filled_Q.fill_(self._k)
        self._floor_Q1 = _scores(best[:, -1:])
        self._num_new = 0


def exact_scores(
    queries_QD: np.ndarray, documents: Vectors, numbers_QK: np.ndarray, *, normalize: bool
) -> np.ndarray:
    """Scores of some documents of each query, summed in float64: float32 [Q, K], -inf for number -1."""
    out = np.full(numbers_QK.shape, -np.inf, np.float32)
    there = numbers_QK >= 0
    out[there] = pair_scores(
        queries_QD, np.nonzero(there)[0], documents, numbers_QK[there], normalize=normalize
    )
    return out


def pair_scores(
    queries_QD: np.ndarray,
    rows_n: np.ndarray,
    documents: Vectors,
    numbers_n: np.ndarray,
    *,
    normalize: bool,
) -> np.ndarray:
    """Score of each pair of a query and a document, summed in float64: float32 [n]; 0 where one is zero."""
    out = np.empty(len(rows_n), np.float32)
    for start in range(0, len(out), _EXACT_PAIRS):
        part = np.s_[start : start + _EXACT_PAIRS]
        left = queries_QD[rows_n[part]].astype(np.float64)
        right = documents.take(numbers_n[part]).astype(np.float64)
        scores = np.einsum("nd,nd->n", left, right)
        if normalize:
            squares = np.einsum("nd,nd->n", left, left) * np.einsum("nd,nd->n", right, right)
            scores /= np.sqrt(np.maximum(squares, 1e-48))
        out[part] = scores
    return out


def _tiles(
    documents: Vectors, normalize: bool, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Number of the first document of each tile, and the tile in float32."""
    for start in range(0, len(documents), BLOCK):
        stop = min(start + BLOCK, len(documents))
        copied = np.array(documents.rows(start, stop), np.float32)
        block = _scaled(torch.from_numpy(copied).to(device), normalize)
        for first in range(0, stop - start, TILE):
            yield start + first, block[first : first + TILE]


def _scaled(rows_nD: Tensor, normalize: bool) -> Tensor:
    """Rows in float32, changed in place to length one where that is asked for.

    Raises:
        ConfigError: one is not finite.
    """
    norm_n1 = torch.linalg.vector_norm(rows_nD, dim=1, keepdim=True)
    if not torch.isfinite(norm_n1).all():
        raise ConfigError(
            "encoder.model", "gives embeddings that are not finite", "use another model"
        )
    return rows_nD.div_(norm_n1.clamp_min_(1e-12)) if normalize else rows_nD


def _scores(keys: Tensor) -> Tensor:
    """The scores in keys, -inf for no hit."""
    ordered = keys >> 32
    bits = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(torch.int32)
    return torch.where(
        keys == no_hits(1, 1, device=keys.device), -torch.inf, bits.view(torch.float32)
    )
