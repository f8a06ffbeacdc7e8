"""The interface of an encoder for saving and describing it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from inbatch.encoder.adapter_files import Adapter
from inbatch.encoder.packing import Packing
from inbatch.encoder.pooling import Pooling
from inbatch.encoder.token_layers import TokenHead
from inbatch.encoder.tokenize import TextTokenizer


class EncoderParts(Protocol):
    """The parts of an `Encoder` that `st_write` and `describe` read; see there for each."""

    tokenizer: TextTokenizer
    head: nn.Sequential
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity: str
    truncate_dim: int | None
    base_model: str | None

    @property
    def output_dimension(self) -> int:
        """Dimensions of an embedding."""

    def prompt_for(self, role: str | None) -> str:
        """The prompt of a role, "" where it has none."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters."""

    def state_dict(self) -> dict[str, Any]:
        """All weights by name."""


class TransformerParts(EncoderParts, Protocol):
    """Further parts of a `TransformerEncoder`."""

    backbone: PreTrainedModel
    token_head: TokenHead
    token_width: int
    pooling: Pooling
    pooler: dict[str, Tensor]
    packing: Packing
    adapter: Adapter | None
