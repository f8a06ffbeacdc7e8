"""One typed batch.

Shape letters: C text columns, B local rows, N = C * B texts, n texts of a chunk, T tokens.

The texts of a batch have one flat order: text ``column * B + row``. Column 0 holds the queries, column 1
the positives, further columns the negatives. Chunks cut that order by length over all columns together,
so padding is small and the encoder needs no notion of a column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from inbatch.batch.documents import Documents
from inbatch.device.copies import to_device


class Chunk(NamedTuple):
    """The texts of one encoder forward, padded to the longest of them."""

    input_ids: Tensor  # [n, T] int64
    attention_mask: Tensor  # [n, T] int64, 1 on real tokens
    prompt_lengths: (
        Tensor  # [n] int64, leading real tokens that belong to the prompt (0: no prompt)
    )
    index: Tensor  # type: ignore[assignment]  # [n] int64, place of each text in the batch's flat order
    num_tokens: int | None = (
        None  # real tokens, counted on the host; None: asking waits for a device
    )

    @property
    def num_texts(self) -> int:
        """Number of texts n."""
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str) -> Chunk:
        """Copy to a device; nothing waits for it."""
        return self.map(lambda tensor: to_device(tensor, device))

    def map(self, change: Callable[[Tensor], Tensor]) -> Chunk:
        """The chunk with every tensor changed, and the same number of tokens."""
        return Chunk(
            change(self.input_ids),
            change(self.attention_mask),
            change(self.prompt_lengths),
            change(self.index),
            self.num_tokens,
        )


class Batch(NamedTuple):
    """The rows of a global batch that one rank holds.

    Invariant: the `index` fields of `chunks` together are a permutation of ``range(C * B)``.
    """

    chunks: tuple[Chunk, ...]
    num_rows: int  # B, may be 0 on a rank in the last batch of an epoch
    num_columns: int  # C
    num_global_rows: int  # rows over all ranks
    labels: Tensor | None  # [B] float32
    text_ids: np.ndarray  # [C, B] uint64, hash of each text (prompt excluded); stays on the host
    source: str
    step: int  # position in the epoch's plan
    num_tokens: int  # real tokens of `chunks`, counted before they travel to a device
    num_padded_tokens: int  # tokens that the encoder computes
    guide_chunks: tuple[Chunk, ...] = ()  # the same texts in the guide's tokens, same flat order
    # Set where rows have lists of documents. Then the flat order is that of `Documents`, `num_columns` is 2,
    # and `text_ids` is flat, [T].
    documents: Documents | None = None
    # Ragged batches embed equal texts once: place among the embedded ones of each text of the flat order,
    # int64 [T]; `index` of the chunks is then a permutation of the embedded ones. None: one for each text.
    copies: np.ndarray | None = None
    # Scores of a teacher, float32 [M]: those of the documents of the first row, positives first, then of the
    # next; M = B * (C - 1) of rows in columns. NaN: none; None: the rows have no column of scores.
    scores: Tensor | None = None
