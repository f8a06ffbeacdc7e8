"""What is compared with, written as the formulas stand: whole matrices and autograd, in float64.

Shape letters: G rows of the global batch, D dimension, P tokens of all texts, H heads, d their dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import normalize


def all_directions(columns: Sequence[Tensor], *, rows: slice, temperature: float) -> Tensor:
    """Multiple negatives ranking of query, positive and negative, each [G, D], in all four directions.

    Li et al. 2023, arXiv:2308.03281.
    """
    query, positive, negative = (normalize(column, dim=1) for column in columns)
    own = torch.eye(len(query), dtype=torch.bool)
    scores = [
        query @ positive.T,
        query @ negative.T,
        (query @ query.T).masked_fill(own, -torch.inf),
        positive @ query.T,
        (positive @ positive.T).masked_fill(own, -torch.inf),
        (positive @ negative.T).masked_fill(own, -torch.inf),
    ]
    return _cross_entropy(scores, rows=rows, temperature=temperature)


def gist(
    columns: Sequence[Tensor], guide: Sequence[Tensor], *, rows: slice, temperature: float
) -> Tensor:
    """GIST of query, positive and negative with a margin of 0. Solatorio 2024, arXiv:2402.16829."""
    query, positive, negative = (normalize(column, dim=1) for column in columns)
    theirs = [normalize(column, dim=1) for column in guide]
    threshold_G1 = (theirs[0] * theirs[1]).sum(1, keepdim=True)
    own = torch.eye(len(query), dtype=torch.bool)
    none = torch.zeros_like(own)
    blocks = [
        (query @ positive.T, theirs[0] @ theirs[1].T, own),
        (query @ query.T, theirs[0] @ theirs[0].T, none),
        (positive @ positive.T, theirs[1] @ theirs[1].T, none),
        (query @ negative.T, theirs[0] @ theirs[2].T, none),
    ]
    scores = [
        score.masked_fill((guided > threshold_G1) & ~kept, -torch.inf)
        for score, guided, kept in blocks
    ]
    scores[1], scores[2] = (score.masked_fill(own, -torch.inf) for score in scores[1:3])
    return _cross_entropy(scores, rows=rows, temperature=temperature)


def _cross_entropy(scores: list[Tensor], *, rows: slice, temperature: float) -> Tensor:
    """Mean over rows of log-sum-exp of all scores less the own one, on the diagonal of the first."""
    logits = torch.cat(scores, dim=1) / temperature
    return (logits.logsumexp(1) - scores[0].diagonal() / temperature)[rows].mean()


def attention(
    query_PHd: Tensor,
    key_PHd: Tensor,
    value_PHd: Tensor,
    offsets: Sequence[int],
    *,
    reach: int | None = None,
    causal: bool = False,
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of each text, [P, H, d]. Vaswani et al. 2017, arXiv:1706.03762.

    Args:
        query_PHd: and key and value likewise, texts one after another.
        offsets: where each text begins, and the end of the last.
        reach: tokens to either side that a token sees; None for all of its text.
        causal: it sees none behind it.
    """
    attended = []
    for start, stop in pairwise(offsets):
        q, k, v = (x[start:stop].transpose(0, 1) for x in (query_PHd, key_PHd, value_PHd))
        logits = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        place = torch.arange(stop - start)
        behind = place[None, :] - place[:, None]
        unseen = behind.abs() > (stop if reach is None else reach)
        unseen = unseen | (behind > 0) if causal else unseen
        logits = logits.masked_fill(unseen, -torch.inf)
        attended.append((logits.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(attended)
