"""Embedding of texts for evaluation, sharded over ranks under every strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from inbatch.batch.batch import Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.encoder import Encoder
from inbatch.gather import all_gather_rows, max_over_ranks
from inbatch.gradcache import fill_chunks

BLOCKS = 16  # of any list of texts, at least, so that few texts are shared too
_BLOCK_CHARACTERS = 4  # for each token of a chunk


@dataclass(frozen=True)
class Place:
    """A rank: its device, and the precision that forwards run in."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    precision: Callable[[], AbstractContextManager[object]] = nullcontext


def place_of(trainer: Trainer) -> Place:
    """The place of this process in a run."""
    return Place(
        trainer.strategy.root_device,
        trainer.global_rank,
        trainer.world_size,
        trainer.precision_plugin.forward_context,
    )


class ShardedEncode:
    """Callable that evaluators embed texts with; every rank gets every embedding.

    Texts are sorted by length and cut into blocks, which are dealt to the ranks in turn and made into chunks
    each by itself. So ranks get equal work, and a text is embedded beside the same others, hence to the same
    bits, by any number of ranks (with equally many threads on equal devices). Ranks run equally many chunks,
    as strategies with sharded parameters need.

    Args:
        place: of this rank.
        encoder: it is put in eval mode for the call.
        chunk_tokens: padded tokens per forward; a longer text goes alone.
    """

    def __init__(self, place: Place, encoder: Encoder, *, chunk_tokens: int = 16384) -> None:
        self._place = place
        self._encoder = encoder
        self._chunk_tokens = chunk_tokens

    @property
    def device(self) -> torch.device:
        """Where this rank embeds."""
        return self._place.device

    @property
    def rank(self) -> int:
        """Of this process."""
        return self._place.rank

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self._place.world_size

    def join(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Rows of all ranks, `counts` of each, in the order of ranks, where `rows` are."""
        if self.world_size == 1:
            return rows
        return all_gather_rows(rows.to(self.device), counts).to(rows.device)

    @torch.no_grad()
    def __call__(
        self, texts: Sequence[str], *, role: str | None, prompt: str | None = None
    ) -> Tensor:
        """Embeddings of all texts in their order, float32 on the CPU: [len(texts), D]."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
        blocks = self._blocks([len(texts[i]) for i in order])
        dealt = [
            [order[place] for block in blocks[rank :: self.world_size] for place in block]
            for rank in range(self.world_size)
        ]
        sizes = [len(block) for block in blocks[self.rank :: self.world_size]]
        prompt = self._encoder.prompt_for(role) if prompt is None else prompt
        own = self._embed([texts[i] for i in dealt[self.rank]], sizes, prompt)
        gathered = self.join(own, [len(places) for places in dealt]).cpu()
        embeddings = torch.empty_like(gathered)
        places = [place for part in dealt for place in part]
        embeddings[torch.tensor(places, dtype=torch.int64)] = gathered
        return embeddings

    def _blocks(self, lengths: Sequence[int]) -> list[range]:
        """Neighbours that become chunks together; the same for any number of ranks."""
        most = min(_BLOCK_CHARACTERS * self._chunk_tokens, 1 + sum(lengths) // BLOCKS)
        blocks, start, characters = [], 0, 0
        for place, length in enumerate(lengths):
            characters += length
            if characters >= most:
                blocks.append(range(start, place + 1))
                start, characters = place + 1, 0
        return [*blocks, range(start, len(lengths))] if start < len(lengths) else blocks

    def _embed(self, texts: Sequence[str], sizes: Sequence[int], prompt: str) -> Tensor:
        """Embeddings of blocks of texts, in their order."""
        device = self.device
        token_ids, prompt_length = self._encoder.tokenizer(texts, prompt)
        chunks: list[Chunk] = []
        starts: list[int] = []
        for start, stop in pairwise(accumulate(sizes, initial=0)):
            made = self._chunks(token_ids[start:stop], prompt_length)
            chunks += made
            starts += [start] * len(made)
        count = max(1, len(chunks))
        if self.world_size > 1:
            (count,) = max_over_ranks([count], device)
        starts += [0] * (count - len(chunks))
        embeddings = torch.empty(len(texts), self._encoder.output_dimension, device=device)
        was_training = self._encoder.training
        self._encoder.eval()
        with self._place.precision():
            for start, chunk in zip(starts, fill_chunks(chunks, count, device), strict=True):
                moved = chunk.to(device)
                part = self._encoder(moved)[:, : self._encoder.truncate_dim].float()
                if moved.index.numel():
                    embeddings[start + moved.index] = part
        self._encoder.train(was_training)
        return embeddings

    def _chunks(self, token_ids: Sequence[Sequence[int]], prompt_length: int) -> tuple[Chunk, ...]:
        tokenizer = self._encoder.tokenizer
        return make_chunks(
            token_ids,
            [prompt_length] * len(token_ids),
            chunk_rows=None,
            # Never too small for a text: one rank would raise, and the others wait for its number of chunks.
            chunk_tokens=max(self._chunk_tokens, max(map(len, token_ids))),
            pad_id=tokenizer.pad_id,
            padding_side=tokenizer.padding_side,
        )
