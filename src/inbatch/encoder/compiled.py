"""Shapes of a compiled encoder. Shape letters: n texts, T tokens of a padded row.

A compiled backbone takes its sizes as symbols, so one graph serves all chunks of a kind of forward
(with or without gradient, training or evaluation). Sizes of one would be compiled apart, and kernels
are faster over sizes that divide by eight. Padded chunks are therefore widened to multiples of eight in
both directions; packed ones are left alone, and stay without padding.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from inbatch.batch.batch import Chunk

MULTIPLE = 8


def widened_shape(shape: torch.Size, *, max_width: int) -> tuple[int, int]:
    """Rows and tokens of a chunk of this shape once it is widened.

    Args:
        shape: [n, T].
        max_width: tokens that the backbone has positions for; T is not widened beyond.
    """
    rows, width = (-(-size // MULTIPLE) * MULTIPLE for size in shape)
    return rows, max(shape[1], min(width, max_width))


def widen(
    chunk: Chunk, *, max_width: int, pad_id: int, padding_side: Literal["right", "left"]
) -> tuple[Tensor, Tensor]:
    """Ids and mask in the widened shape, which begin (or end, if padded on the left) as the chunk's.

    The last text fills further rows: one without any token would have no attention to normalise.
    """
    num_texts, width = chunk.input_ids.shape
    rows, wide = widened_shape(chunk.input_ids.shape, max_width=max_width)
    extra = (wide - width, 0) if padding_side == "left" else (0, wide - width)
    row = torch.arange(rows, device=chunk.input_ids.device).clamp(max=num_texts - 1)
    return (
        pad(chunk.input_ids, extra, value=pad_id)[row],
        pad(chunk.attention_mask, extra)[row],
    )
