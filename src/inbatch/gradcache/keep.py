"""How many graphs fit a memory budget: those chunks need no second forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

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
        self.most_tokens: int | None = None  # whose graphs are kept, since memory has run out
        self._bytes_per_token: float | None = None

    @property
    def keeps_all(self) -> bool:
        """True if every graph is kept, whatever the batch."""
        return self.keep_gib is None and self.most_tokens is None

    def num_keep(self, chunks: Sequence[Chunk]) -> int:
        """Chunks, counted from the first, whose graphs fit together."""
        if self.keep_gib and self._bytes_per_token is None:
            chunks = chunks[:1]
        tokens = accumulate(chunk.input_ids.numel() for chunk in chunks)
        return sum(map(self._fits, tokens))

    def _fits(self, num_tokens: int) -> bool:
        if self.most_tokens is not None and num_tokens > self.most_tokens:
            return False
        if not self.keep_gib:
            return self.keep_gib is None
        return num_tokens * (self._bytes_per_token or 0.0) <= self.keep_gib * GIB

    def lower(self, held: Sequence[Chunk]) -> int:
        """From now on keep graphs of half as many tokens as were held when memory ran out.

        Args:
            held: chunks whose graphs were held, the one that was computed included if it was to be kept.

        Returns:
            How many of these, counted from the first, may stay: fewer than all.
        """
        self.most_tokens = sum(chunk.input_ids.numel() for chunk in held) // 2
        return self.num_keep(held)

    @property
    def wants_measure(self) -> bool:
        """True if the next kept forward should run inside `measure`."""
        return bool(self.keep_gib) and self._bytes_per_token is None

    @contextmanager
    def measure(self, num_tokens: int, held: Sequence[Tensor]) -> Iterator[None]:
        """Weigh what autograd saves in this context, each storage once.

        Args:
            num_tokens: computed tokens of the forward inside.
            held: tensors that are there anyway, such as parameters, and do not count.
        """
        known = {tensor.untyped_storage().data_ptr() for tensor in held}
        seen: dict[int, torch.UntypedStorage] = {}  # alive, so that no other gets the same id

        def weigh(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                seen[id(storage)] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
            yield
        # Gathered parameters that FSDP has let go again have no bytes now.
        num_bytes = sum(storage.nbytes() for storage in seen.values())
        self._bytes_per_token = num_bytes / max(1, num_tokens)
