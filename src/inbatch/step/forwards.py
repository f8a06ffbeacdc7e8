"""Forwards of the encoder in a step, and what is kept of them: how many, measured how, in which chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.func import functional_call

from inbatch.batch.batch import Chunk
from inbatch.encoder import Encoder
from inbatch.encoder.lookup import shared_lookup
from inbatch.encoder.shared_casts import shared_casts
from inbatch.gather import local_part, max_over_ranks
from inbatch.gradcache import (
    Collectives,
    KeepBudget,
    OutOfMemoryHandler,
    SharedPasses,
    fill_chunks,
    is_filler,
)

_ALL = 2**31  # graphs, more than there are chunks


class Forwards:
    """The encoder as the gradient cache calls it.

    Args:
        encoder: in training.
        budget: memory for kept graphs; measured in the first forward that keeps one.
        device: where it computes.
        world_size: number of ranks.
        collective: ranks take part in each other's forwards, so they must make equally many.
        compiled: the backbone runs through torch.compile.
    """

    def __init__(
        self,
        encoder: Encoder,
        budget: KeepBudget,
        *,
        device: torch.device,
        world_size: int,
        collective: bool,
        compiled: bool,
    ) -> None:
        self.encoder = encoder
        self._budget = budget
        self._device = device
        self._collective = collective
        self._aligns = collective and world_size > 1
        self._compiled = compiled
        self._casts: dict[str, Tensor] = {}

    def __call__(self, chunk: Chunk) -> Tensor:
        """Embeddings of a chunk, [n, D]."""
        measures = self._budget.wants_measure and torch.is_grad_enabled()
        if measures and not is_filler(chunk):
            held = [local_part(parameter) for parameter in self.encoder.parameters()]
            with self._budget.measure(chunk.input_ids.numel(), [*held, *self._casts.values()]):
                return self._embed(chunk)
        return self._embed(chunk)

    def _embed(self, chunk: Chunk) -> Tensor:
        if not self._casts:
            return self.encoder(chunk)
        embeddings_nD: Tensor = functional_call(
            self.encoder, self._casts, (chunk,), tie_weights=False
        )
        return embeddings_nD

    def shared(
        self, memory: OutOfMemoryHandler, collectives: Collectives | None
    ) -> SharedPasses | None:
        """What sees that all ranks come to the end of a batch, where their passes can be repeated."""

        def most(value: int) -> int:
            return max_over_ranks([value], self._device)[0] if self._aligns else value

        return None if collectives is None else SharedPasses(memory, collectives, most)

    def aligned(self, chunks: Sequence[Chunk]) -> tuple[list[Chunk], int]:
        """Chunks of a step, and how many graphs to keep; the same numbers on all ranks where they must be."""
        num_keep = self._budget.num_keep(chunks)
        num_chunks = max(1, len(chunks))
        if self._aligns:
            wanted = _ALL if self._budget.keeps_all else num_keep
            num_chunks, fewest = max_over_ranks([num_chunks, -wanted], self._device)
            num_keep = min(num_chunks, -fewest)
        return fill_chunks(chunks, num_chunks, self._device), num_keep

    @contextmanager
    def of_batch(
        self, chunks: Sequence[Chunk], added: Callable[[Tensor], None]
    ) -> Iterator[Callable[[], None]]:
        """Share what the forwards of a batch have in common: casts of weights, and lookups of tokens.

        A compiled backbone makes its own casts, and shards are cast when they are gathered.

        Args:
            chunks: of the batch.
            added: called for a parameter whose gradient of a chunk is complete though not yet in place.

        Yields:
            A function to call before the last backward.
        """
        if not (self._collective or self._compiled):
            self._casts = shared_casts(self.encoder, self._device)
        try:
            with self._share_lookup(chunks, added) as complete:
                yield complete
        finally:
            self._casts = {}

    def _share_lookup(
        self, chunks: Sequence[Chunk], added: Callable[[Tensor], None]
    ) -> AbstractContextManager[Callable[[], None]]:
        """One gradient of the token table for all chunks, on a CPU with whole parameters, not compiled."""
        if self._device.type != "cpu" or self._collective or self._compiled or len(chunks) == 1:
            return nullcontext(lambda: None)
        table = self.encoder.token_table
        if table is None:
            return nullcontext(lambda: None)
        return shared_lookup(table, [chunk.input_ids for chunk in chunks], added=added)
