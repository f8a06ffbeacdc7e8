"""Forwards of gradient caching, done again with less memory where they run out of it.

What a forward has drawn is drawn again, so a retried step has the gradient of some ordinary step: one
with fewer kept graphs, or with halves in place of a chunk. A rank may do so alone, since no other rank
takes part in its forwards; not so where parameters are in shards. Shape letters: n texts, D dimension.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu

from inbatch.batch.batch import Chunk
from inbatch.batch.chunks import halve_chunks
from inbatch.gradcache.rng import RngState

Encode = Callable[[Chunk], Tensor]
OnOutOfMemory = Callable[[], None]


class Embedded(NamedTuple):
    """A chunk after the first forward."""

    chunk: Chunk
    embeddings: Tensor  # [n, D], with its graph if kept
    rng: RngState  # the state before, to replay
    kept: bool

    def without_embeddings(self) -> Embedded:
        """All that a replay needs."""
        return self._replace(embeddings=self.embeddings.new_empty(0))


def embed_all(
    encode: Encode,
    chunks: Sequence[Chunk],
    *,
    num_keep: int,
    on_out_of_memory: OnOutOfMemory | None,
) -> list[Embedded]:
    """Embed every chunk, the first `num_keep` with their graphs.

    Out of memory, all graphs are let go; where none is held, the chunk is cut into halves, once.
    """
    done: list[Embedded] = []
    waiting = deque((chunk, False) for chunk in chunks)
    while waiting:
        chunk, halved = waiting.popleft()
        rng = RngState.capture(chunk.input_ids.device)
        try:
            done.append(_embed(encode, chunk, rng, keep=len(done) < num_keep))
            continue
        except torch.OutOfMemoryError:
            holds_graphs = num_keep > 0
            if on_out_of_memory is None or not (
                holds_graphs or (chunk.num_texts > 1 and not halved)
            ):
                raise
        # Out of the handler, since the error's traceback holds the tensors of the failed forward.
        if holds_graphs:
            num_keep = 0
            done = [e._replace(embeddings=e.embeddings.detach(), kept=False) for e in done]
            waiting.appendleft((chunk, halved))
        else:
            waiting.extendleft((half, True) for half in reversed(halve_chunks([chunk])))
        on_out_of_memory()
        rng.restore()
    return done


def _embed(encode: Encode, chunk: Chunk, rng: RngState, *, keep: bool) -> Embedded:
    with torch.set_grad_enabled(keep):
        return Embedded(chunk, encode(chunk), rng, keep)


class Replay:
    """Second forwards, with their graphs.

    From the first that runs out of memory on, graphs lie in the host's memory: a chunk cannot be cut
    here, since its halves would draw other dropout than the whole has drawn.
    """

    def __init__(self, encode: Encode, on_out_of_memory: OnOutOfMemory | None) -> None:
        self._encode = encode
        self._on_out_of_memory = on_out_of_memory
        self._on_host = False

    def __call__(self, embedded: Embedded) -> Tensor:
        """Embeddings [n, D] as in the first forward."""
        embedded.rng.restore()
        if not self._on_host:
            try:
                return self._encode(embedded.chunk)
            except torch.OutOfMemoryError:
                if self._on_out_of_memory is None:
                    raise
            self._on_out_of_memory()
            self._on_host = True
            embedded.rng.restore()
        with save_on_cpu():
            return self._encode(embedded.chunk)
