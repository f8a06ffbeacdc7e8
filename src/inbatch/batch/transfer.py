"""A batch on its way from a worker to a device: the tokens of all chunks in one buffer of int32.

A tensor that a worker hands over costs a file handle and shared memory, a pinned one an allocation of its
own, a copy to a device a call; a large batch has thousands of them. A packed batch has two tensors. Masks
are left out, since the length of a text and the side of its padding tell them.

Shape letters: n texts of a chunk, T tokens, as in data/batch.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from inbatch.batch.batch import Batch, Chunk
from inbatch.device.copies import to_device


class _Shape(NamedTuple):
    """How a chunk lies in the buffer: input_ids, lengths, prompt_lengths, index."""

    num_texts: int
    width: int
    num_tokens: int | None
    left: bool  # padding on the left

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.num_texts * self.width, self.num_texts, self.num_texts, self.num_texts)


@final
class PackedBatch(NamedTuple):
    """A batch as `pack` lays it out; `open` turns it into the same batch again."""

    numbers: Tensor  # int32, all chunks one behind another
    shapes: tuple[_Shape, ...]  # of the chunks, then of the guide's chunks
    num_chunks: int
    # Without chunks, and labels and scores as the bits of int32, which no precision plugin rounds.
    rest: Batch

    def pin_memory(self) -> PackedBatch:
        """Page-locked copy; called by the DataLoader's pinning thread."""
        rest = _changed(self.rest, Tensor.pin_memory)
        return self._replace(numbers=self.numbers.pin_memory(), rest=rest)

    def open(self, device: torch.device | str) -> Batch:
        """The batch on a device; nothing waits for it.

        The hashes of the texts are no tensor, which DDP would move: a store is looked up on the CPU.
        """
        numbers = to_device(self.numbers, device).long()
        sizes = [size for shape in self.shapes for size in shape.sizes]
        parts = iter(numbers.split(sizes))
        chunks = tuple(_chunk(shape, *(next(parts) for _ in range(4))) for shape in self.shapes)
        rest = _changed(self.rest, lambda bits: to_device(bits, device).view(torch.float32))
        return rest._replace(
            chunks=chunks[: self.num_chunks],
            guide_chunks=chunks[self.num_chunks :],
        )


def pack(batch: Batch) -> PackedBatch:
    """A batch whose chunks are padded on one side, on the CPU, as one buffer."""
    chunks = (*batch.chunks, *batch.guide_chunks)
    return PackedBatch(
        numbers=_join([part for chunk in chunks for part in _parts(chunk)]),
        shapes=tuple(_shape(chunk) for chunk in chunks),
        num_chunks=len(batch.chunks),
        rest=_changed(batch, lambda numbers: numbers.view(torch.int32))._replace(
            chunks=(), guide_chunks=()
        ),
    )


def _changed(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with its labels and scores changed, where it has some."""
    labels, scores = (None if t is None else change(t) for t in (batch.labels, batch.scores))
    return batch._replace(labels=labels, scores=scores)


def _shape(chunk: Chunk) -> _Shape:
    num_texts, width = chunk.input_ids.shape
    first, last = chunk.attention_mask[:, :1], chunk.attention_mask[:, -1:]
    left = bool(((first == 0) & (last == 1)).any())
    return _Shape(num_texts, width, chunk.num_tokens, left)


def _parts(chunk: Chunk) -> tuple[Tensor, ...]:
    lengths_n = chunk.attention_mask.sum(dim=1)
    return chunk.input_ids.flatten(), lengths_n, chunk.prompt_lengths, chunk.index


def _join(parts: Sequence[Tensor]) -> Tensor:
    numbers = torch.empty(sum(part.numel() for part in parts), dtype=torch.int32)
    for target, part in zip(numbers.split([part.numel() for part in parts]), parts):
        target.copy_(part)
    return numbers


def _chunk(
    shape: _Shape, ids: Tensor, lengths_n: Tensor, prompts_n: Tensor, index: Tensor
) -> Chunk:
    places_T = torch.arange(shape.width, device=ids.device)
    if shape.left:
        places_T = places_T.flip(0)
    return Chunk(
        input_ids=ids.view(shape.num_texts, shape.width),
        attention_mask=(places_T < lengths_n[:, None]).long(),
        prompt_lengths=prompts_n,
        index=index,
        num_tokens=shape.num_tokens,
    )
