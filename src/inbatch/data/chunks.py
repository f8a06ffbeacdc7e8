"""Token lists -> length-sorted chunks. Shape letters: N texts, n texts of a chunk, T tokens.

The texts of all columns are sorted together, longest first: neighbours have nearly the same length,
so padding is small, and the chunk that needs the most memory comes first. A chunk is as large as
`chunk_rows` texts or `chunk_tokens` computed tokens (n * T, padding included) allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Literal

import numpy as np
import torch

from inbatch.data.batch import Chunk
from inbatch.errors import ConfigError


def make_chunks(
    token_ids: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    *,
    chunk_rows: int | None,
    chunk_tokens: int | None,
    pad_id: int,
    padding_side: Literal["right", "left"] = "right",
    multiple_of: int = 1,
) -> tuple[Chunk, ...]:
    """Sort N tokenized texts by length and pad them chunk by chunk.

    Args:
        token_ids: Token ids of each text, special tokens included.
        prompt_lengths: Leading tokens of each text that belong to its prompt.
        chunk_rows: Most texts of a chunk; None for no limit.
        chunk_tokens: Most computed tokens n * T of a chunk; None for no limit.
        pad_id: Token that fills the rest of a row.
        padding_side: Where the padding goes.
        multiple_of: T is rounded up to a multiple of this.

    Returns:
        Chunks whose `index` fields together are a permutation of ``range(N)``; none when N is 0.
        With neither limit there is one chunk.

    Raises:
        ConfigError: `chunk_tokens` is below the (padded) length of a single text.
    """
    lengths_N = np.fromiter(map(len, token_ids), dtype=np.int64, count=len(token_ids))
    prompts_N = np.asarray(prompt_lengths, dtype=np.int64)
    order_N = np.argsort(-lengths_N, kind="stable")
    padded_N = -(-lengths_N[order_N] // multiple_of) * multiple_of
    chunks = []
    for start, stop in _cuts(padded_N, chunk_rows=chunk_rows, chunk_tokens=chunk_tokens):
        index_n = order_N[start:stop]
        ids_nT, mask_nT = _pad(
            [token_ids[i] for i in index_n.tolist()],
            lengths_N[index_n],
            width=int(padded_N[start]),
            pad_id=pad_id,
            padding_side=padding_side,
        )
        chunks.append(
            Chunk(
                input_ids=torch.from_numpy(ids_nT),
                attention_mask=torch.from_numpy(mask_nT),
                prompt_lengths=torch.from_numpy(prompts_N[index_n]),
                index=torch.from_numpy(index_n),
                num_tokens=int(lengths_N[index_n].sum()),
            )
        )
    return tuple(chunks)


def halve_chunks(chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
    """Each chunk of several texts in two, and each half cut to its longest text.

    Waits for the device, which has to tell the length.
    """
    halves = []
    for chunk in chunks:
        middle = -(-chunk.num_texts // 2)
        for part in (slice(0, middle), slice(middle, chunk.num_texts)):
            half = chunk.map(itemgetter(part))
            if half.num_texts:
                real = half.attention_mask.any(0).nonzero()
                width = slice(int(real[0]), int(real[-1]) + 1) if len(real) else slice(0, 1)
                ids, mask = half.input_ids[:, width], half.attention_mask[:, width]
                halves.append(Chunk(ids, mask, half.prompt_lengths, half.index, int(mask.sum())))
    return tuple(halves)


def _cuts(
    padded_N: np.ndarray, *, chunk_rows: int | None, chunk_tokens: int | None
) -> Iterator[tuple[int, int]]:
    """Start and stop of each chunk. Lengths fall, so the first text of a chunk sets its width."""
    start, count = 0, len(padded_N)
    while start < count:
        size = count if chunk_rows is None else chunk_rows
        if chunk_tokens is not None:
            width = max(int(padded_N[start]), 1)
            if width > chunk_tokens:
                raise ConfigError(
                    f"chunk_tokens={chunk_tokens} cannot hold one text of {width} tokens: "
                    f"raise it to at least {width} or lower max_length."
                )
            size = min(size, chunk_tokens // width)
        stop = min(start + size, count)
        yield start, stop
        start = stop


def _pad(
    token_ids: list[Sequence[int]],
    lengths_n: np.ndarray,
    *,
    width: int,
    pad_id: int,
    padding_side: Literal["right", "left"],
) -> tuple[np.ndarray, np.ndarray]:
    """Padded ids and mask, both int64 [n, T], without a Python loop over tokens."""
    place_T = np.arange(width)
    if padding_side == "left":
        place_T = place_T[::-1]
    real_nT = place_T[None, :] < lengths_n[:, None]
    ids_nT = np.full(real_nT.shape, pad_id, dtype=np.int64)
    # A boolean mask is filled row by row, which is the order of the flat tokens.
    if token_ids and isinstance(token_ids[0], np.ndarray):
        ids_nT[real_nT] = np.concatenate(token_ids)
    else:
        total = int(lengths_n.sum())
        ids_nT[real_nT] = np.fromiter(chain.from_iterable(token_ids), dtype=np.int64, count=total)
    return ids_nT, real_nT.astype(np.int64)
