"""A guide that embeds every batch. Shape letters: N texts of the batch, Dg the guide's dimension."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from inbatch.batch.batch import Batch
from inbatch.device.copies import to_device
from inbatch.encoder import Encoder
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.guide.base import Process


@final
class LiveGuide:
    """Embeds the guide's chunks of a batch on the fly, in the precision of the step.

    Args:
        encoder: the guide; it is frozen here.
    """

    looks_up = False

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder.eval().requires_grad_(False)
        self.prompts = encoder.role_prompts
        self.dimension = encoder.dimension
        self._device: torch.device | None = None

    @property
    def tokenizer(self) -> TextTokenizer:
        """The guide's, since its vocabulary need not be the encoder's."""
        return self.encoder.tokenizer

    def start(self, process: Process) -> None:
        """Move the guide to the device."""
        self._move(process.device)

    @torch.inference_mode()
    def embed(self, batch: Batch, device: torch.device) -> Tensor:
        """Embeddings of all texts in the batch's flat order, float32: [N, Dg]."""
        self._move(device)
        num_texts = sum(chunk.num_texts for chunk in batch.guide_chunks)
        flat = torch.empty(num_texts, self.encoder.dimension, dtype=torch.float32, device=device)
        for chunk in batch.guide_chunks:
            flat[chunk.index] = self.encoder(chunk).float()
        return (
            flat
            if batch.copies is None
            else flat[to_device(torch.from_numpy(batch.copies), device)]
        )

    def _move(self, device: torch.device) -> None:
        if self._device != device:
            self.encoder.to(device)
            self._device = device
