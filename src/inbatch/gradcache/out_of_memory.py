"""Out of memory in a step: use less for the rest of it and for all further steps.

On one process, in the first batch of an optimizer step, no gradient outlives the failed attempt: chunks
and the kept graphs are halved, and the step is repeated, once. Elsewhere a forward is done again by the
rank that it failed on (retry.py), and chunks are halved from the next batch on. Where all ranks take
part in each forward, and in a backward that has accumulated a part, nothing exact is left to do: the
error says which setting needs less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from inbatch.batch.batch import Batch, Chunk
from inbatch.batch.chunks import halve_chunks
from inbatch.device.memory import free_memory
from inbatch.errors import ConfigError
from inbatch.gradcache.keep import KeepBudget
from inbatch.gradcache.retry import OnOutOfMemory

T = TypeVar("T")


class OutOfMemoryHandler:
    """Remembers by how much the chunks of every batch are cut down.

    Args:
        budget: of the kept graphs; halved together with the chunks.
    """

    def __init__(self, budget: KeepBudget) -> None:
        self.num_halvings = 0
        self.budget = budget

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
        attempt: Callable[[OnOutOfMemory | None], T],
        *,
        batch: Batch,
        rank: int,
        may_repeat: bool,
        may_retry: bool,
        undo: Callable[[], None],
        say: Callable[[str], None],
    ) -> T:
        """The result of `attempt`, done again as far as it ran out of memory.

        Args:
            attempt: cuts its batch by `fit`, and calls what it is given before it does a forward again.
            batch: of the step, for the error.
            rank: of this process.
            may_repeat: whether repeating the whole attempt is exact.
            may_retry: whether one rank may do a forward again.
            undo: takes back what a failed attempt has accumulated.
            say: prints a line.

        Raises:
            ConfigError: what is left to do has run out of memory, or nothing is.
        """
        on_out_of_memory = (
            None if may_repeat or not may_retry else self._on_out_of_memory(rank, say)
        )
        try:
            return attempt(on_out_of_memory)
        except torch.OutOfMemoryError as error:
            if not may_repeat:
                raise self._too_large(batch) from error
        # Out of the handler, since the error's traceback holds the tensors of the failed attempt.
        undo()
        self.shrink()
        free_memory()
        say(f"out of memory: {self._sizes()} from this step on, which is repeated")
        try:
            return attempt(None)
        except torch.OutOfMemoryError as error:
            raise self._too_large(batch) from error

    def _on_out_of_memory(self, rank: int, say: Callable[[str], None]) -> OnOutOfMemory:
        """A function to call before a forward is done again; it speaks and shrinks once."""
        shrunk = False

        def on_out_of_memory() -> None:
            nonlocal shrunk
            if not shrunk:
                shrunk = True
                self.shrink()
                say(f"out of memory on rank {rank}: {self._sizes()} there from the next batch on")
            free_memory()

        return on_out_of_memory

    def shrink(self) -> None:
        """Cut chunks once more, and keep half as much."""
        self.num_halvings += 1
        self.budget.halve()

    def _sizes(self) -> str:
        return (
            f"chunks are cut to 1/{2**self.num_halvings} of their size and "
            f"{self.budget.keep_gib:g} GiB of graphs are kept"
        )

    def _too_large(self, batch: Batch) -> ConfigError:
        """The error for a batch whose chunks do not fit."""
        shapes = [chunk.input_ids.shape for chunk in self.fit(batch).chunks]
        tokens = max((rows * width for rows, width in shapes), default=0)
        longest = max((width for _, width in shapes), default=0)
        fix = (
            f"gradcache.chunk_tokens={tokens // 2} gradcache.keep_gib=0"
            if tokens // 2 >= longest
            else "encoder.gradient_checkpointing=true gradcache.keep_gib=0, or a smaller "
            "encoder.max_length"
        )
        return ConfigError(
            "gradcache", f"runs out of memory with chunks of up to {tokens} tokens", f"set {fix}"
        )
