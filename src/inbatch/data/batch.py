"""One typed batch.

Shape letters: C text columns, B local rows, N = C * B texts, n texts of a chunk, T tokens.

The texts of a batch have one flat order: text ``column * B + row``. Column 0 holds the queries, column 1
the positives, further columns the negatives. Chunks cut that order by length over all columns together,
so padding is small and the encoder needs no notion of a column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


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

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Chunk:
        """Copy to a device; asynchronous where the source is pinned."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Chunk:
        """Page-locked copy, so that `to` overlaps with compute."""
        return self.map(Tensor.pin_memory)

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
    text_ids: Tensor  # [C, B] int64, 64-bit hash of each text (prompt excluded)
    source: str
    step: int  # position in the epoch's plan
    num_tokens: int  # real tokens of `chunks`, counted before they travel to a device
    num_padded_tokens: int  # tokens that the encoder computes
    guide_chunks: tuple[Chunk, ...] = ()  # the same texts in the guide's tokens, same flat order

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """Copy every tensor to a device."""
        return self._replace(
            chunks=tuple(chunk.to(device, non_blocking) for chunk in self.chunks),
            guide_chunks=tuple(chunk.to(device, non_blocking) for chunk in self.guide_chunks),
            labels=None
            if self.labels is None
            else self.labels.to(device, non_blocking=non_blocking),
            text_ids=self.text_ids.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Batch:
        """Page-locked copy; called by the DataLoader's pinning thread."""
        return self._replace(
            chunks=tuple(chunk.pin_memory() for chunk in self.chunks),
            guide_chunks=tuple(chunk.pin_memory() for chunk in self.guide_chunks),
            labels=None if self.labels is None else self.labels.pin_memory(),
            text_ids=self.text_ids.pin_memory(),
        )
