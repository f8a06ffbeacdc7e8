"""Exact top-k search in tiles.

Shape letters: Q queries, N documents of a block, K hits, D dimension.

A hit is one int64 key: the score's bits, made order-preserving, above the document's rank in the
order of ids. So a larger key is a better hit, equal scores fall back on the smaller id, and the
best K of any number of blocks are the largest K keys: given the scores, the result depends
neither on the order nor on the size of blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from inbatch.device.matmul_precision import exact_products
from inbatch.evaluation.metrics import similarities

TILE = 128  # queries whose scores are computed at once, a power of two
_TILE_SCORES = 2**24  # scores held at once: 64 MiB
_LOW = 2**32 - 1
_NO_HIT = torch.iinfo(torch.int64).min


def no_hits(num_queries: int, k: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Keys [Q, K] before the first block."""
    return torch.full((num_queries, k), _NO_HIT, dtype=torch.int64, device=device)


def search_block(
    keys_QK: Tensor, queries_QD: Tensor, documents_ND: Tensor, ranks_N: Tensor, *, similarity: str
) -> Tensor:
    """The best hits among those found so far and a block of documents.

    Time is that of the scores (2 Q N D operations for cosine and dot); memory 64 MiB of scores at a
    time, whatever Q and N are. Each tile of TILE queries is a product of its own, so a query's hits are the
    same, bit for bit, whichever other tiles are searched with its own.

    Args:
        keys_QK: hits so far, see `no_hits`.
        queries_QD: finite embeddings.
        documents_ND: finite embeddings of the block, on the same device.
        ranks_N: int64 rank of each document's id among the ids of the whole corpus, below 2**32.
        similarity: one of SIMILARITIES.

    Returns:
        Keys [Q, K], best first.
    """
    if similarity == "cosine":  # once a block, not once a tile
        queries_QD, documents_ND = normalize(queries_QD, dim=-1), normalize(documents_ND, dim=-1)
        similarity = "dot"
    rows = max(1, _TILE_SCORES // max(1, len(documents_ND)))
    rows = min(
        TILE, 1 << (rows.bit_length() - 1)
    )  # divides TILE, so that tiles begin at its multiples
    with exact_products():
        found = [
            _merge(keys, similarities(queries, documents_ND, similarity), ranks_N)
            for keys, queries in zip(keys_QK.split(rows), queries_QD.split(rows))
        ]
    return torch.cat(found)


def tile_rows(num_queries: int) -> list[int]:
    """Queries of each tile."""
    return [min(TILE, num_queries - start) for start in range(0, num_queries, TILE)]


def hit_ranks(keys_QK: Tensor) -> Tensor:
    """Ranks of the hits' documents; -1 for a missing hit."""
    return torch.where(keys_QK == _NO_HIT, -1, _LOW - (keys_QK & _LOW))


def _merge(keys_QK: Tensor, scores_QN: Tensor, ranks_N: Tensor) -> Tensor:
    k, num_documents = keys_QK.shape[1], scores_QN.shape[1]
    if num_documents <= k:
        new = hit_keys(scores_QN, ranks_N)
    else:
        # Scores settle nearly every row; the one after the k-th shows the rows that they do not.
        values, places = scores_QN.topk(k + 1, dim=1)
        new = hit_keys(values[:, :k], ranks_N[places[:, :k]])
        (tied,) = (values[:, k - 1] == values[:, k]).nonzero(as_tuple=True)
        for some in tied.split(64):  # keys of whole rows take three times the memory of scores
            new[some] = hit_keys(scores_QN[some], ranks_N).topk(k, dim=1).values
    return torch.cat([keys_QK, new], dim=1).topk(k, dim=1).values


def hit_keys(scores: Tensor, ranks: Tensor) -> Tensor:
    """Keys of float32 scores and int64 ranks of the same shape."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0 in its bits too
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (_LOW - ranks)
