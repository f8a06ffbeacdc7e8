"""How many graphs fit a memory budget: those chunks need no second forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from inbatch.batch.batch import Chunk

GIB = 1 << 30


class KeepBudget:
    """Chooses how many chunks keep their graph, from the bytes per token that graphs were seen to hold.

    Args:
        keep_gib: GiB of activations that may be held between the passes; None keeps every graph,
            0 keeps none (the least memory: each chunk is embedded twice).

    A budget measures itself: the graph of the first chunk that it keeps is weighed by the bytes that
    autograd saves, parameters excluded. Until then it keeps one chunk.
    """

    def __init__(self, keep_gib: float | None) -> None:
        self.keep_gib = keep_gib
        self._bytes_per_token: float | None = None

    def num_keep(self, chunks: Sequence[Chunk]) -> int:
        """Chunks, counted from the first, whose graphs fit together."""
        if self.keep_gib is None:
            return len(chunks)
        if self.keep_gib == 0:
            return 0
        if self._bytes_per_token is None:
            return min(1, len(chunks))
        left = self.keep_gib * GIB
        for position, chunk in enumerate(chunks):
            left -= chunk.input_ids.numel() * self._bytes_per_token
            if left < 0:
                return position
        return len(chunks)

    def halve(self) -> None:
        """Keep half as much from now on; where every graph was kept, none, since the sum is unknown."""
        self.keep_gib = 0.0 if self.keep_gib is None else self.keep_gib / 2

    @property
    def wants_measure(self) -> bool:
        """True if the next kept forward should run inside `measure`."""
        return bool(self.keep_gib) and self._bytes_per_token is None

    @contextmanager
    def measure(self, num_tokens: int, parameters: Sequence[Tensor]) -> Iterator[None]:
        """Weigh what autograd saves in this context, each storage once."""
        known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
        seen: dict[int, int] = {}

        def weigh(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
            yield
        self._bytes_per_token = sum(seen.values()) / max(1, num_tokens)
