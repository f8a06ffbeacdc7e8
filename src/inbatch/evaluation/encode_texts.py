"""A saved model in the form that evaluators call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inbatch.encoder import Encoder
from inbatch.errors import ConfigError


@dataclass(frozen=True)
class EncodeTexts:
    """An encoder in the form that evaluators call."""

    encoder: Encoder
    chunk_tokens: int

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return next(self.encoder.parameters()).device

    def __call__(
        self, texts: Sequence[str], *, role: str | None, prompt: str | None = None
    ) -> Tensor:
        """Embeddings of texts with the prompt of a role, or another one, [N, D]."""
        options = {"role": role, "prompt": prompt}
        return self.encoder.encode(texts, chunk_tokens=self.chunk_tokens, **options)


def on_device(encoder: Encoder, device: str | torch.device | None) -> Encoder:
    """Move an encoder; None leaves it where it is.

    Raises:
        ConfigError: the device cannot be used.
    """
    return encoder if device is None else encoder.to(usable_device(device))


def usable_device(device: str | torch.device) -> torch.device:
    """A device of torch, on which memory can be had.

    Raises:
        ConfigError: it cannot be used.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            "device", f"cannot be used ({reason})", "set cpu or cuda", value=str(device)
        ) from error
