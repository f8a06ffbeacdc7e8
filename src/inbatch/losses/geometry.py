"""How embeddings lie on the unit sphere. Shape letters: G rows, R looked at, D dimension."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, pdist

MAX_ROWS = 256  # cost grows with its square; the means hardly change beyond


@torch.no_grad()
def alignment_and_uniformity(query_GD: Tensor, positive_GD: Tensor) -> dict[str, Tensor]:
    """Two scalars over the first rows, each with one positive: near 0 and very negative is good.

    ``alignment = mean |q_i - p_i|^2``, ``uniformity = log mean_{i<j} exp(-2 |x_i - x_j|^2)``, the
    latter averaged over x = q and x = p; NaN for a single row. Wang & Isola 2020, arXiv:2005.10242.
    """
    query_RD = normalize(query_GD[:MAX_ROWS].float(), dim=-1)
    positive_RD = normalize(positive_GD[:MAX_ROWS].float(), dim=-1)
    both = torch.stack([_uniformity(query_RD), _uniformity(positive_RD)])
    return {
        "alignment": (query_RD - positive_RD).square().sum(1).mean(),
        "uniformity": both.mean(),
    }


def _uniformity(unit_RD: Tensor) -> Tensor:
    return pdist(unit_RD).square().mul(-2).exp().mean().log()
