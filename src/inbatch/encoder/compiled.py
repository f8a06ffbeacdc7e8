"""Shapes of a compiled encoder. Shape letters: n texts, T tokens of a padded row.

A compiled backbone takes its sizes as symbols, so one graph serves all chunks of a kind of forward
(with or without gradient, training or evaluation). A size of one would be compiled separately, and
kernels are faster for multiples of eight. Padded chunks are therefore widened to multiples of eight in
both directions; packed chunks, which have no padding, stay as they are.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from inbatch.batch.batch import Chunk

MULTIPLE = 8


def widened_shape(shape: torch.Size, *, max_width: int) -> tuple[int, int]:
    """Compute the rows and tokens of a chunk of this shape after widening.

    Args:
        shape: [n, T].
        max_width: tokens that the backbone has positions for; T is not widened beyond.
    """
    rows, width = (-(-size // MULTIPLE) * MULTIPLE for size in shape)
    return rows, max(shape[1], min(width, max_width))


def widen(
    chunk: Chunk, *, max_width: int, pad_id: int, padding_side: Literal["right", "left"]
) -> tuple[Tensor, Tensor]:
    """Pad ids and mask to the widened shape, on the side where the chunk is padded.

    The last text is repeated in the added rows: attention over a row without tokens is undefined.
    """
    num_texts, width = chunk.input_ids.shape
    rows, wide = widened_shape(chunk.input_ids.shape, max_width=max_width)
    extra = (wide - width, 0) if padding_side == "left" else (0, wide - width)
    row = torch.arange(rows, device=chunk.input_ids.device).clamp(max=num_texts - 1)
    return (
        pad(chunk.input_ids, extra, value=pad_id)[row],
        pad(chunk.attention_mask, extra)[row],
    )
