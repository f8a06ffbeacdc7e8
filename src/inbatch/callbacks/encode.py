"""Embedding of texts for evaluation, sharded over ranks under every strategy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from inbatch.batch.chunks import make_chunks
from inbatch.encoder import Encoder
from inbatch.gather import all_gather_rows, max_over_ranks, split_rows
from inbatch.gradcache import fill_chunks


class ShardedEncode:
    """Callable that evaluators embed texts with; every rank gets every embedding.

    Texts are sorted by length and dealt in turn, so ranks get equal work and no text is counted twice.
    Ranks run equally many chunks, as strategies with sharded parameters need.

    Args:
        trainer: of the run; its precision applies.
        encoder: the encoder in training; it is put in eval mode for the call.
        chunk_tokens: padded tokens per forward; a longer text goes alone.
    """

    def __init__(self, trainer: Trainer, encoder: Encoder, *, chunk_tokens: int = 16384) -> None:
        self._trainer = trainer
        self._encoder = encoder
        self._chunk_tokens = chunk_tokens

    @property
    def device(self) -> torch.device:
        """Where this rank embeds."""
        return self._trainer.strategy.root_device

    @torch.no_grad()
    def __call__(
        self, texts: Sequence[str], *, role: str | None, prompt: str | None = None
    ) -> Tensor:
        """Embeddings of all texts in their order, float32 on the CPU: [len(texts), D]."""
        world, rank = self._trainer.world_size, self._trainer.global_rank
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
        prompt = self._encoder.prompt_for(role) if prompt is None else prompt
        own = self._embed([texts[i] for i in order[rank::world]], prompt)
        if world > 1:
            own = all_gather_rows(own, split_rows(len(texts), world))
        gathered = own.cpu()
        dealt = [i for r in range(world) for i in order[r::world]]
        embeddings = torch.empty_like(gathered)
        embeddings[torch.tensor(dealt, dtype=torch.int64)] = gathered
        return embeddings

    def _embed(self, texts: Sequence[str], prompt: str) -> Tensor:
        device = self.device
        tokenizer = self._encoder.tokenizer
        token_ids, prompt_length = tokenizer(texts, prompt)
        chunks = make_chunks(
            token_ids,
            [prompt_length] * len(token_ids),
            chunk_rows=None,
            # Never too small for a text: one rank would raise, and the others wait for its number of chunks.
            chunk_tokens=max(self._chunk_tokens, max(map(len, token_ids), default=0)),
            pad_id=tokenizer.pad_id,
            padding_side=tokenizer.padding_side,
        )
        count = max(1, len(chunks))
        if self._trainer.world_size > 1:
            (count,) = max_over_ranks([count], device)
        embeddings = torch.empty(len(texts), self._encoder.output_dimension, device=device)
        was_training = self._encoder.training
        self._encoder.eval()
        with self._trainer.precision_plugin.forward_context():
            for chunk in fill_chunks(chunks, count, device):
                moved = chunk.to(device)
                part = self._encoder(moved)[:, : self._encoder.truncate_dim].float()
                if moved.index.numel():
                    embeddings[moved.index] = part
        self._encoder.train(was_training)
        return embeddings
