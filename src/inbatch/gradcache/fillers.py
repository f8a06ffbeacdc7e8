"""Equal chunk counts on every rank, for strategies whose forward and backward are collective."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inbatch.batch.batch import Chunk


def filler_chunk(device: torch.device, *, token_id: int = 0) -> Chunk:
    """One text of one token and an empty index: takes part in each pass, contributes nothing."""
    one = torch.full((1, 1), token_id, dtype=torch.int64, device=device)
    return Chunk(
        input_ids=one,
        attention_mask=torch.ones_like(one),
        prompt_lengths=torch.zeros(1, dtype=torch.int64, device=device),
        index=torch.empty(0, dtype=torch.int64, device=device),
        num_tokens=1,
    )


def is_filler(chunk: Chunk) -> bool:
    """True for a chunk that only keeps ranks in step. Known from shapes alone."""
    return chunk.index.numel() == 0


def fill_chunks(chunks: Sequence[Chunk], num_chunks: int, device: torch.device) -> list[Chunk]:
    """`chunks` first, then fillers up to `num_chunks`."""
    return [*chunks, *(filler_chunk(device) for _ in range(num_chunks - len(chunks)))]
