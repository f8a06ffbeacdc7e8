"""Arithmetic on pairs: row i of one column with row i of another.

Computed in float32, or in float64 where the embeddings are. Products are sums of elementwise ones,
which autocast leaves alone. Shape letters: N rows, D dimension.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

Distance = Literal["cosine", "euclidean", "manhattan"]
DISTANCES = ("cosine", "euclidean", "manhattan")


def full_precision(values: Tensor) -> Tensor:
    """Half-precision values as float32; others unchanged."""
    return values if values.dtype == torch.float64 else values.float()


def pair_dot(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """Dot product of each pair, [N]."""
    return (full_precision(x_ND) * full_precision(y_ND)).sum(1)


def pair_cosine(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """Cosine of each pair, [N]."""
    return pair_dot(normalize(full_precision(x_ND), dim=1), normalize(full_precision(y_ND), dim=1))


def pair_distance(x_ND: Tensor, y_ND: Tensor, *, kind: Distance, eps: float = 0.0) -> Tensor:
    """Distance of each pair, [N].

    ``eps`` is added to each coordinate's difference for the euclidean and the manhattan distance
    (torch's ``pairwise_distance`` takes 1e-6), which gives equal texts a gradient.
    """
    if kind == "cosine":
        return 1 - pair_cosine(x_ND, y_ND)
    difference_ND = full_precision(x_ND) - full_precision(y_ND) + eps
    return torch.linalg.vector_norm(difference_ND, ord=2 if kind == "euclidean" else 1, dim=1)


def pair_angle(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """AnglE's similarity of each pair, [N]: absolute value of cosine + sine.

    The two halves of an embedding are the real and the imaginary parts of a complex vector; an odd
    dimension is filled up with a zero. The cosine is the real part of the hermitian product
    of the normalised vectors, the sine its imaginary part.
    """
    odd = x_ND.shape[1] % 2
    x_ND, y_ND = (normalize(pad(full_precision(v), (0, odd)), dim=1) for v in (x_ND, y_ND))
    (x_re, x_im), (y_re, y_im) = x_ND.chunk(2, dim=1), y_ND.chunk(2, dim=1)
    sine_N = pair_dot(x_im, y_re) - pair_dot(x_re, y_im)
    return (pair_dot(x_ND, y_ND) + sine_N).abs()


def masked_mean(values_N: Tensor, mask_N: Tensor) -> Tensor:
    """Mean of the values under a mask, nan where it is empty; no wait for the device."""
    return torch.where(mask_N, values_N, 0).sum() / mask_N.sum()
