"""Mean of the vectors of a text's tokens. Shape letters: n texts, T tokens of a padded row, P real tokens of
all rows, V tokens of the vocabulary, E dimensions.

On a CPU forward and backward are both sums of rows by groups, torch's embedding bag: a text sums the
vectors of its tokens, and a token the gradients of the texts that it is in. No [n, T, E] is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag, pad

from inbatch.batch.batch import Chunk


def mean_of_tokens(table_VE: Tensor, chunk: Chunk) -> Tensor:
    """Mean over the real tokens of each text, [n, E]; zero for a text without tokens.

    Equals torch's ``EmbeddingBag(mode="mean")`` over these tokens. The gradient is dense, [V, E].
    """
    if table_VE.device.type != "cpu":
        return mean_of_padded(table_VE, chunk)
    tokens_P = chunk.input_ids[chunk.attention_mask.bool()]
    mean_nE: Tensor = _Mean.apply(table_VE, tokens_P, chunk.attention_mask.sum(dim=1))
    return mean_nE


def mean_of_padded(table_VE: Tensor, chunk: Chunk) -> Tensor:
    """The same by torch's own kernels, with padding of weight 0.

    For a GPU, where choosing the real tokens would make the host wait for their number.
    """
    ids_nT, mask_nT = chunk.input_ids, chunk.attention_mask
    if ids_nT.shape[1] == 0:  # no text has a token, and a bag needs a place
        ids_nT, mask_nT = pad(ids_nT, (0, 1)), pad(mask_nT, (0, 1))
    weights_nT = mask_nT.to(table_VE.dtype) / mask_nT.sum(dim=1).clamp(min=1)[:, None]
    return embedding_bag(ids_nT, table_VE, per_sample_weights=weights_nT, mode="sum")


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_VE: Tensor, tokens_P: Tensor, lengths_n: Tensor) -> Tensor:
        ctx.save_for_backward(tokens_P, lengths_n)
        ctx.num_tokens = len(table_VE)
        return embedding_bag(tokens_P, table_VE, _starts(lengths_n), mode="mean")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nE: Tensor) -> tuple[Tensor, None, None]:
        tokens_P, lengths_n = ctx.saved_tensors
        share_nE = grad_nE / lengths_n.clamp(min=1)[:, None]
        text_P = torch.repeat_interleave(lengths_n)[_by_token(tokens_P, ctx.num_tokens)]
        uses_V = torch.bincount(tokens_P, minlength=ctx.num_tokens)
        return embedding_bag(text_P, share_nE, _starts(uses_V), mode="sum"), None, None


def _by_token(tokens_P: Tensor, num_tokens: int) -> Tensor:
    """Places in the order of their tokens; NumPy sorts 16-bit numbers by radix, which is faster."""
    narrow = np.uint16 if num_tokens <= 2**16 else np.int64
    return torch.from_numpy(tokens_P.numpy().astype(narrow).argsort(kind="stable"))


def _starts(sizes: Tensor) -> Tensor:
    """Where each of so large groups starts, one behind another."""
    return sizes.cumsum(0) - sizes
