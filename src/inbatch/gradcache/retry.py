"""The passes over chunks, done again with less memory where they run out of it.

What a forward has drawn is drawn again, and no gradient is added twice, so a retried step has the gradient
of some ordinary step: one with fewer kept graphs, which is the same to the last bit, or with halves in
place of chunks. A rank may do so alone, since no other rank takes part in its forwards; not so where
parameters are in shards. Shape letters: n texts, N texts of the batch, D dimension.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu

from inbatch.batch.batch import Chunk
from inbatch.device.memory import unless_out_of_memory
from inbatch.gradcache.accumulated import Accumulated
from inbatch.gradcache.rng import RngState

Encode = Callable[[Chunk], Tensor]


class Relief(Protocol):
    """Settings that can be lowered where memory runs out; what is lowered stays so for further batches."""

    @property
    def may_repeat(self) -> bool:
        """True if the whole step is done again where this is cheaper; a failed backward then raises."""

    def keep_fewer(self, held: Sequence[Chunk]) -> int:
        """Choose how many of the graphs that are held may stay, counted from the first: fewer than all."""

    def halve(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Cut the chunks, none of them embedded yet, in two; give back none where no text can be parted."""

    def halve_later(self) -> None:
        """Cut chunks in two from the next batch on."""


class Embedded(NamedTuple):
    """A chunk after the first forward."""

    chunk: Chunk
    embeddings: Tensor  # [n, D], with its graph if kept; [0] where a replay makes them again
    rng: RngState  # the state before, to replay
    kept: bool
    reached: frozenset[int] = frozenset()  # parameters that have the chunk's gradient already

    def without_embeddings(self) -> Embedded:
        """All that a replay needs."""
        return self._replace(embeddings=self.embeddings.new_empty(0), kept=False)

    def without_graph(self) -> Embedded:
        """The embeddings alone."""
        return self._replace(embeddings=self.embeddings.detach(), kept=False)


def embed_all(
    encode: Encode, chunks: Sequence[Chunk], *, num_keep: int, relief: Relief | None
) -> list[Embedded]:
    """Embed every chunk, the first `num_keep` with their graphs.

    Where memory runs out, the later half of the graphs is let go of, as often as there is one; then all
    chunks that are still to be embedded are cut into halves, as often as that can be done. A `relief` of None
    lets the error pass.
    """
    done: list[Embedded] = []
    waiting = deque(chunks)
    while waiting:
        chunk = waiting.popleft()
        rng = RngState.capture(chunk.input_ids.device)
        keep = len(done) < num_keep
        compute = partial(_embed, encode, chunk, rng, keep=keep)
        found = compute() if relief is None else unless_out_of_memory(compute)
        if isinstance(found, Embedded):
            done.append(found)
            continue
        assert relief is not None
        held = [e.chunk for e in done if e.kept] + [chunk] * keep
        if held:
            num_keep = relief.keep_fewer(held)
            done = [e if n < num_keep else e.without_graph() for n, e in enumerate(done)]
            waiting.appendleft(chunk)
        elif halves := relief.halve([chunk, *waiting]):
            waiting = deque(halves)
        else:
            raise found
        rng.restore()
    return done


def _embed(encode: Encode, chunk: Chunk, rng: RngState, *, keep: bool) -> Embedded:
    with torch.set_grad_enabled(keep):
        return Embedded(chunk, encode(chunk), rng, keep)


def keep_fewer(embedded: list[Embedded], relief: Relief) -> bool:
    """Let go of the later half of the graphs that are held, in place; False where none is."""
    held = [e.chunk for e in embedded if e.kept]
    if not held:
        return False
    stay = relief.keep_fewer(held)
    embedded[:] = [e if n < stay else e.without_graph() for n, e in enumerate(embedded)]
    return True


class ChunkBackward:
    """Backwards of a batch's chunks, in their order.

    One that runs out of memory is done again for the parameters that it has not reached, by a second forward:
    beside fewer kept graphs, as often as there are some; in halves, if the first forward drew no random
    numbers, which halves would draw otherwise; with its graph in the host's memory, as all after it.

    Args:
        encode: chunk -> embeddings [n, D].
        surrogate: chunk, its embeddings -> a scalar with their gradient.
        run: a surrogate, whether it is the batch's last, whether gradients are to be reduced -> None; goes
            backward.
        relief: lowers what is kept or cut; None lets the error pass.
        accumulated: sees which parameters have been reached, where the whole step is not done again.
    """

    def __init__(
        self,
        encode: Encode,
        surrogate: Callable[[Chunk, Tensor], Tensor],
        run: Callable[[Tensor, bool, bool], None],
        *,
        relief: Relief | None,
        accumulated: Accumulated | None,
    ) -> None:
        self._encode = encode
        self._surrogate = surrogate
        self._run = run
        self._relief = None if relief is None or relief.may_repeat else relief
        self._accumulated = accumulated or Accumulated(())
        assert self._relief is None or accumulated is not None
        self._on_host = False
        self._reducing = False  # the last backward has begun to, and goes on when done again

    def all(self, embedded: list[Embedded], *, draws: bool) -> None:
        """Go backward through all chunks; uses up the list.

        Args:
            embedded: those of the batch.
            draws: whether their forwards draw random numbers.
        """
        waiting = deque(embedded)
        embedded.clear()  # each graph is freed when its backward is done
        watched = nullcontext() if self._relief is None else self._accumulated.watch()
        with watched:
            while waiting:
                self._next(waiting, draws=draws)

    def _next(self, waiting: deque[Embedded], *, draws: bool) -> None:
        again, is_last = waiting[0].without_embeddings(), len(waiting) == 1
        compute = partial(self._one, [waiting.popleft()], is_last=is_last)
        if self._relief is None:
            compute()
            return
        error, reached = unless_out_of_memory(compute), self._accumulated.take()
        self._reducing = is_last and (self._reducing or bool(reached))
        again = again._replace(reached=again.reached | reached)
        if error is not None and not self._accumulated.are_all(again.reached, is_last=is_last):
            waiting.extendleft(reversed(self._smaller(again, waiting, self._relief, draws, error)))

    def _smaller(
        self,
        failed: Embedded,
        waiting: deque[Embedded],
        relief: Relief,
        draws: bool,
        error: RuntimeError,
    ) -> list[Embedded]:
        """What to do in place of a chunk whose backward has failed."""
        rest = list(waiting)
        if keep_fewer(rest, relief):
            waiting.clear()
            waiting.extend(rest)
            return [failed]
        cut = not (draws or self._reducing or self._on_host)
        if cut and (halves := relief.halve([failed.chunk, *(e.chunk for e in rest)])):
            waiting.clear()
            first = min(2, failed.chunk.num_texts)
            return [
                failed._replace(chunk=half, reached=failed.reached if n < first else frozenset())
                for n, half in enumerate(halves)
            ]
        if self._on_host:
            raise error
        self._on_host = True
        relief.halve_later()
        return [failed]

    def _one(self, held: list[Embedded], *, is_last: bool) -> None:
        """Take a chunk out of `held`, embed it again where its graph is gone, and go backward."""
        e = held.pop()
        with self._accumulated.only_others(e.reached):
            surrogate = self._surrogate(e.chunk, e.embeddings if e.kept else self._embed_again(e))
            del e
            self._run(surrogate, is_last, is_last and not self._reducing)

    def _embed_again(self, e: Embedded) -> Tensor:
        e.rng.restore()
        place: AbstractContextManager[object] = save_on_cpu() if self._on_host else nullcontext()
        with place:
            return self._encode(e.chunk)
