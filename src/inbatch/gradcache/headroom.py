"""Out of memory in a step: halve the chunks and the kept graphs, and repeat the step once.

Exact where no gradient outlives the failed attempt: on one process, in the first batch of an optimizer
step. Elsewhere the error goes on: other ranks would wait in a collective that this one repeats, and
what earlier batches have accumulated could not be told from the failed attempt's share.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from inbatch.data.batch import Batch, Chunk
from inbatch.data.chunks import halve_chunks
from inbatch.gradcache.keep import KeepBudget

T = TypeVar("T")


class Headroom:
    """Remembers by how much the chunks of every batch are cut down.

    Args:
        budget: of the kept graphs; halved together with the chunks.
    """

    def __init__(self, budget: KeepBudget) -> None:
        self.num_halvings = 0
        self._budget = budget

    def fit(self, batch: Batch) -> Batch:
        """The batch in chunks of the size that has been found to fit."""
        if self.num_halvings == 0:
            return batch
        chunks = self._halved(batch.chunks)
        return batch._replace(
            chunks=chunks,
            guide_chunks=self._halved(batch.guide_chunks),
            num_padded_tokens=sum(chunk.input_ids.numel() for chunk in chunks),
        )

    def _halved(self, chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
        for _ in range(self.num_halvings):
            chunks = halve_chunks(chunks)
        return tuple(chunks)

    def run(
        self,
        attempt: Callable[[], T],
        *,
        may_repeat: bool,
        undo: Callable[[], None],
        say: Callable[[str], None],
    ) -> T:
        """The result of `attempt`, or of its one repetition after it ran out of memory.

        Args:
            attempt: cuts its batch by `fit`.
            may_repeat: whether a repetition is exact.
            undo: takes back what a failed attempt has accumulated.
            say: prints a line.

        Raises:
            torch.OutOfMemoryError: of the repetition, or of the attempt where it may not be repeated.
        """
        try:
            return attempt()
        except torch.OutOfMemoryError:
            if not may_repeat:
                raise
        # Out of the handler, since the error's traceback holds the tensors of the failed attempt.
        undo()
        self.num_halvings += 1
        self._budget.halve()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        say(
            f"out of memory: chunks are cut to 1/{2**self.num_halvings} of their size and "
            f"{self._budget.keep_gib:g} GiB of graphs are kept from this step on, which is repeated"
        )
        return attempt()
