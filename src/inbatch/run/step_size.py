"""What a step's memory and arithmetic depend on: an encoder and a batch, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """An encoder in numbers.

    parameters, trainable: of the whole encoder.
    embedding_parameters: of tables that are looked up, without arithmetic.
    layers, width, intermediate, heads: of the transformer; no layers: the mean of vectors of this width.
    dimension: D of the embeddings.
    bytes_per_value: of a parameter.
    dropout: whether the transformer drops values in training.
    """

    parameters: int
    trainable: int
    embedding_parameters: int
    layers: int
    width: int
    intermediate: int
    heads: int
    dimension: int
    bytes_per_value: int = 4
    dropout: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSize:
    """One global batch.

    device: where it is computed.
    global_rows, local_rows, num_columns: rows of the batch, of this rank, and mean texts of a row.
    held_rows: rows whose embeddings a rank holds at a time.
    text_tokens: mean computed tokens of a text.
    guide_dimension: 0 without guide.
    world_size: ranks.
    activation_bytes: of a value in the forward; 2 under bf16 and fp16, else 4 (8 in fp64).
    """

    device: Literal["cpu", "cuda"]
    global_rows: int
    local_rows: int
    held_rows: int
    num_columns: float
    text_tokens: float
    guide_dimension: int = 0
    world_size: int = 1
    activation_bytes: int = 4

    @property
    def local_tokens(self) -> float:
        """Computed tokens of this rank."""
        return self.local_rows * self.num_columns * self.text_tokens
