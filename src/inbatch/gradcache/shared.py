"""Passes in which all ranks take part, on a rank that runs out of memory while the others wait for it.

Where parameters are in shards, each forward and backward gathers them from all ranks. A rank whose pass
fails lets go of all that the batch holds, and goes through the batch's passes again with fillers: chunks of
one token, that need next to no memory. Collectives that the others have seen are left out on the way, those
that they wait for take place. So all ranks come to the end of the batch, where they tell each other. What it
has accumulated is worth nothing then: they drop it, and repeat the batches of the optimizer step with less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, final

from inbatch.batch.batch import Batch, Chunk
from inbatch.device.memory import unless_out_of_memory
from inbatch.gradcache.fillers import fill_chunks
from inbatch.gradcache.out_of_memory import PLACES, OutOfMemoryHandler, too_large
from inbatch.gradcache.retry import Embedded, Encode, embed_all

T = TypeVar("T")


class Collectives(Protocol):
    """The collectives of forwards and backwards."""

    def start(self) -> None:
        """A batch begins, with all parameters in shards."""

    def start_over(self) -> None:
        """Its passes begin once more, after one has failed; collectives that took place are left out."""

    def forget(self) -> None:
        """Drop the gradients of the optimizer step, and all that is left of its passes."""


@final
class SharedPasses:
    """The passes of a batch on one of several ranks.

    Args:
        memory: knows what has been lowered, and lowers it.
        collectives: those of the passes.
        most: an integer -> the largest of all ranks; all call it together.
    """

    def __init__(
        self,
        memory: OutOfMemoryHandler,
        collectives: Collectives,
        most: Callable[[int], int],
    ) -> None:
        self._memory, self._collectives, self._most = memory, collectives, most
        self._chunks: Sequence[Chunk] = ()
        self._num_keep = 0
        self._failed = False  # in the attempt
        self._ended_at = 0  # 1 + the place where nothing was left to lower
        self._attempts: list[Callable[[], object]] = []  # batches of the optimizer step

    def start(self, chunks: Sequence[Chunk], num_keep: int) -> None:
        """A batch begins.

        Args:
            chunks: equally many on all ranks.
            num_keep: graphs to keep, the same on all ranks.
        """
        self._chunks, self._num_keep = chunks, num_keep
        self._collectives.start()

    def completed(self, compute: Callable[[], T]) -> T | None:
        """The result of a pass; None where it has run out of memory, which lowers what can be lowered."""
        found = unless_out_of_memory(compute)
        if not isinstance(found, RuntimeError):
            return found
        self._fail()
        return None

    def embed_fillers(self, encode: Encode) -> list[Embedded]:
        """Pass 1 once more, with fillers."""
        self._collectives.start_over()
        fillers = fill_chunks((), len(self._chunks), self._chunks[0].input_ids.device)
        return embed_all(encode, fillers, num_keep=self._num_keep, relief=None)

    def keep_fewer(self) -> bool:
        """Keep fewer graphs in the next attempt; False where this one holds none any more."""
        if self._failed or not self._num_keep:
            return False
        self._fail()
        return True

    def end(self) -> None:
        """Nothing is left to lower at the place where the batch is."""
        self._failed = True
        self._ended_at = 1 + PLACES.index(self._memory.place)

    def _fail(self) -> None:
        if self._failed:
            return
        self._failed = True
        if self._num_keep:
            self._memory.keep_fewer(self._chunks[: self._num_keep])
        elif all(chunk.num_texts <= 1 for chunk in self._chunks):
            self.end()
        else:
            self._memory.halve_later()

    def run(
        self,
        attempt: Callable[[], T],
        *,
        batch: Batch,
        position: int,
        say: Callable[[str], None],
    ) -> T:
        """The result of `attempt`; all batches since the first are repeated while a rank lacks memory.

        Args:
            attempt: the passes of a batch.
            batch: the one of those passes.
            position: its place in its optimizer step.
            say: see `OutOfMemoryHandler.run`.

        Raises:
            ConfigError: on all ranks, since one of them has nothing left to lower.
        """
        self._memory.begin()
        self._attempts = [*self._attempts[:position], attempt]
        self._failed, self._ended_at = False, 0
        found = self._unless_out_of_memory(attempt, batch)
        while outcome := self._most(1 + self._ended_at if self._failed else 0):
            self._collectives.forget()
            if outcome > 1:
                self._memory.num_halvings = self._most(self._memory.num_halvings)
                raise too_large(self._memory.fit(batch), PLACES[outcome - 2], held=0)
            self._failed = False
            for again in self._attempts[:-1]:
                self._unless_out_of_memory(again, batch)
            found = self._unless_out_of_memory(attempt, batch)
        self._memory.report(say)
        return found

    def _unless_out_of_memory(self, attempt: Callable[[], T], batch: Batch) -> T:
        """The result of an attempt, which ends this rank alone where it cannot take part in a collective."""
        found = unless_out_of_memory(attempt)
        if isinstance(found, RuntimeError):
            raise too_large(self._memory.fit(batch), self._memory.place, held=0) from found
        return found
