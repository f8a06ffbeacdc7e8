"""Rows that travel from rank to rank, so that none ever holds those of all.

At hop h, rank r holds the rows of rank r - h (modulo W): each rank sends what it holds to the next one, W - 1
times. A rank that runs out of memory makes some free and goes on; the others wait for it meanwhile. Shape
letters: C columns, b local rows, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from inbatch.device.memory import retried


class PendingHop:
    """Tensors on their way from the rank before, while others go to the next one."""

    def __init__(self, tensors: Sequence[Tensor], owner: int, ring: RowsRing) -> None:
        world_size = len(ring.counts)
        rows = ring.counts[(owner - 1) % world_size]

        def buffers() -> tuple[list[Tensor], list[Tensor]]:
            sent = [tensor.contiguous() for tensor in tensors]
            return sent, [t.new_empty(t.shape[0], rows, *t.shape[2:]) for t in sent]

        # What is sent lives until it has arrived.
        self._sent, self._received = retried(buffers, lambda: ring.lower() is not None)
        after, before = (ring.rank + 1) % world_size, (ring.rank - 1) % world_size
        self._works = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, tensor, after) for tensor in self._sent]
            + [dist.P2POp(dist.irecv, tensor, before) for tensor in self._received]
        )

    def wait(self) -> list[Tensor]:
        """Block until they have arrived."""
        for work in self._works:
            work.wait()
        self._sent.clear()
        return self._received


def _nothing_left() -> int | None:
    return None


@dataclass(frozen=True, slots=True)
class RowsRing:
    """The ring as losses use it, `inbatch.losses.base.Ring`. Each rank holds a row at least."""

    counts: tuple[int, ...]
    rank: int
    lower: Callable[[], int | None] = _nothing_left

    def hops(self, tensors: Sequence[Tensor]) -> Iterator[tuple[int, list[Tensor]]]:
        """The own tensors [C, b, ...], and then those of the ranks before, from the nearest on."""
        owner, held = self.rank, list(tensors)
        for _ in range(len(self.counts) - 1):
            coming = PendingHop(held, owner, self)
            yield owner, held
            owner, held = (owner - 1) % len(self.counts), coming.wait()
        yield owner, held

    def pass_on(self, tensor: Tensor, owner: int) -> PendingHop:
        """Send on what belongs to a hop, and receive the same of the next one."""
        return PendingHop([tensor], owner, self)
