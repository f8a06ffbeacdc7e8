"""Forwards of the encoder in a step, and what is kept of them: how many, measured how, in which chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from inbatch.batch.batch import Chunk
from inbatch.encoder import Encoder
from inbatch.encoder.lookup import shared_lookup
from inbatch.gather import local_part, max_over_ranks
from inbatch.gradcache import KeepBudget, fill_chunks


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

    def __call__(self, chunk: Chunk) -> Tensor:
        """Embeddings of a chunk, [n, D]."""
        if self._budget.wants_measure and torch.is_grad_enabled():
            held = [local_part(parameter) for parameter in self.encoder.parameters()]
            with self._budget.measure(chunk.input_ids.numel(), held):
                return self.encoder(chunk)
        return self.encoder(chunk)

    def aligned(self, chunks: Sequence[Chunk]) -> tuple[list[Chunk], int]:
        """Chunks of a step, and how many graphs to keep; the same numbers on all ranks where they must be."""
        num_keep = self._budget.num_keep(chunks)
        num_chunks = max(1, len(chunks))
        if self._aligns:
            num_chunks, fewest = max_over_ranks([num_chunks, -num_keep], self._device)
            num_keep = num_chunks if self._budget.keep_gib is None else -fewest
        return fill_chunks(chunks, num_chunks, self._device), num_keep

    def share_lookup(self, chunks: Sequence[Chunk]) -> AbstractContextManager[Callable[[], None]]:
        """One gradient of the token table for all chunks, on a CPU with whole parameters, not compiled.

        The context gives a function to call before the last backward.
        """
        if self._device.type != "cpu" or self._collective or self._compiled or len(chunks) == 1:
            return nullcontext(lambda: None)
        table = self.encoder.backbone.get_input_embeddings()
        assert isinstance(table, torch.nn.Embedding)
        return shared_lookup(table, [chunk.input_ids for chunk in chunks])
