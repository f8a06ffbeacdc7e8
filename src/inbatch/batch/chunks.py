"""Token lists -> length-sorted chunks. Shape letters: N texts, n texts of a chunk, T tokens.

The texts of all columns are sorted together, longest first: neighbours have nearly the same length,
so padding is small, and the chunk that needs the most memory comes first. A chunk holds at most
`chunk_rows` texts and `chunk_tokens` computed tokens (n * T, padding included). Where it ends is chosen
for all chunks together, by dynamic programming: each costs its computed tokens, and its start as much as
some tokens more. Cuts fall where lengths change, unless a chunk is full before.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import chain, pairwise
from operator import itemgetter
from typing import Literal

import numpy as np
import torch

from inbatch.batch.batch import Chunk
from inbatch.errors import ConfigError

# What starting a chunk costs, as a share of the computed tokens that it may hold: kernels that are too
# small for the device, and on a CPU the gradient of the whole embedding table.
START_SHARE = 1 / 16


def make_chunks(
    token_ids: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    *,
    chunk_rows: int | None,
    chunk_tokens: int | None,
    pad_id: int,
    padding_side: Literal["right", "left"] = "right",
) -> tuple[Chunk, ...]:
    """Sort N tokenized texts by length and pad them chunk by chunk.

    Args:
        token_ids: Token ids of each text, special tokens included.
        prompt_lengths: Leading tokens of each text that belong to its prompt.
        chunk_rows: Most texts of a chunk; None for no limit.
        chunk_tokens: Most computed tokens n * T of a chunk; None for no limit.
        pad_id: Token that fills the rest of a row.
        padding_side: Where the padding goes.

    Returns:
        Chunks whose `index` fields together are a permutation of ``range(N)``; none when N is 0.
        With neither limit there is one chunk.

    Raises:
        ConfigError: `chunk_tokens` is below the length of a single text.
    """
    lengths_N = np.fromiter(map(len, token_ids), dtype=np.int64, count=len(token_ids))
    prompts_N = np.asarray(prompt_lengths, dtype=np.int64)
    order_N = np.argsort(-lengths_N, kind="stable")
    chunks = []
    for start, stop in pairwise(_cuts(lengths_N[order_N], rows=chunk_rows, tokens=chunk_tokens)):
        index_n = order_N[start:stop]
        ids_nT, mask_nT = _pad(
            [token_ids[i] for i in index_n.tolist()],
            lengths_N[index_n],
            width=int(lengths_N[order_N[start]]),
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

    Waits once for the device, which has to tell the lengths.
    """
    halves = []
    for chunk, (lengths_n, first_n) in zip(chunks, _lengths(chunks)):
        left = bool(np.any((first_n == 0) & (lengths_n > 0)))  # padding on the left
        full, middle = chunk.input_ids.shape[1], -(-chunk.num_texts // 2)
        for part in (slice(0, middle), slice(middle, chunk.num_texts)):
            half, lengths = chunk.map(itemgetter(part)), lengths_n[part]
            if half.num_texts:
                longest = max(int(lengths.max()), 1)
                width = slice(full - longest, full) if left else slice(0, longest)
                ids, mask = half.input_ids[:, width], half.attention_mask[:, width]
                num_tokens = int(lengths.sum())
                halves.append(Chunk(ids, mask, half.prompt_lengths, half.index, num_tokens))
    return tuple(halves)


def _lengths(chunks: Sequence[Chunk]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each chunk, the lengths of its texts and the mask of their first places, all in one transfer."""
    if not chunks:
        return []
    both = [torch.stack([c.attention_mask.sum(1), c.attention_mask[:, :1].sum(1)]) for c in chunks]
    on_host = torch.cat(both, dim=1).cpu().numpy()
    ends = np.cumsum([chunk.num_texts for chunk in chunks])[:-1]
    return [(lengths_n, first_n) for lengths_n, first_n in np.split(on_host, ends, axis=1)]


def _cuts(padded_N: np.ndarray, *, rows: int | None, tokens: int | None) -> list[int]:
    """Where chunks start, and the end: rising from 0 to N. Lengths fall, so the first text sets the width."""
    count = len(padded_N)
    changes = np.append(np.flatnonzero(padded_N[1:] != padded_N[:-1]) + 1, count)
    start_cost = 0.0 if tokens is None else START_SHARE * tokens
    cost, came_from = {0: 0.0}, {0: 0}
    waiting = [0]
    while waiting and waiting[0] < count:
        start = heapq.heappop(waiting)
        width = max(int(padded_N[start]), 1)
        full = min(start + _most_texts(width, rows, tokens), count)
        first, last = np.searchsorted(changes, (start, full), side="right")
        stops = changes[first:last].tolist() if tokens is not None else []
        for stop in dict.fromkeys([*stops, full]):
            total = cost[start] + start_cost + (stop - start) * width
            if stop not in cost:
                heapq.heappush(waiting, stop)
            if total < cost.get(stop, np.inf):
                cost[stop], came_from[stop] = total, start
    cuts = [count]
    while cuts[-1]:
        cuts.append(came_from[cuts[-1]])
    return cuts[::-1]


def _most_texts(width: int, rows: int | None, tokens: int | None) -> int:
    """Texts of this width that a chunk may hold."""
    if tokens is not None and width > tokens:
        raise ConfigError(
            "chunk_tokens",
            f"cannot hold one text of {width} tokens",
            f"set at least {width} or lower max_length",
            value=tokens,
        )
    limits = [n for n in (rows, None if tokens is None else tokens // width) if n is not None]
    return min(limits, default=2**62)


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
