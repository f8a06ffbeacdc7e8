"""The encoder without a transformer: a text's embedding is the mean of its tokens' vectors.

It is what sentence-transformers calls a StaticEmbedding. A text costs one look-up a token, so it is embedded
about as fast as it is tokenized, and a graph holds little more than the embeddings:
steps of any size need no second forward. Words are a bag: their order does not count.

Shape letters: n texts of a chunk, V tokens of the vocabulary, E dimensions of vectors, D of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from inbatch.batch.batch import Chunk
from inbatch.encoder.bag import mean_of_tokens
from inbatch.encoder.describe import architecture_text, describe_encoder
from inbatch.encoder.model import Encoder
from inbatch.encoder.st_write import write_directory
from inbatch.encoder.static_files import UNLIMITED, static_modules
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError


@final
class StaticEncoder(Encoder):
    """Mean of token vectors, without special tokens, and the layers after it.

    Equals sentence-transformers' `StaticEmbedding`, followed by the head. A prompt's tokens are averaged too.

    Args:
        vectors_VE: the vector of each token id; training starts from them.
        tokenizer: without special tokens.
        options: of `Encoder`: head, prompts, default_prompt_name, similarity, truncate_dim, base_model.

    Raises:
        ConfigError: the tokenizer has more ids than there are vectors, or see `Encoder`.
    """

    def __init__(self, vectors_VE: Tensor, tokenizer: TextTokenizer, **options: Any) -> None:
        super().__init__(tokenizer, width=vectors_VE.shape[1], **options)
        largest = max(tokenizer.hf.get_vocab().values())
        if largest >= len(vectors_VE):
            raise ConfigError(
                "tokenizer",
                f"has ids up to {largest}, and there are {len(vectors_VE)} vectors",
                "give the tokenizer that the vectors were made for",
            )
        self.embedding = nn.Embedding.from_pretrained(vectors_VE, freeze=False)

    def forward(self, chunk: Chunk) -> Tensor:
        """Embeddings [n, D] of a chunk on the same device, in the dtype of the vectors."""
        embeddings_nD: Tensor = self.head(mean_of_tokens(self.embedding.weight, chunk))
        return embeddings_nD

    @property
    def token_table(self) -> None:
        """None: a chunk holds as many texts as fit, so its gradient of the whole table is worth it."""
        return None

    def num_computed_tokens(self, chunk: Chunk) -> int:
        """The real tokens on a CPU; padding too on a GPU, which looks it up."""
        if chunk.num_tokens is not None and chunk.input_ids.device.type == "cpu":
            return chunk.num_tokens
        return chunk.input_ids.numel()

    def compile_backbone(self, *, backend: str = "inductor") -> None:
        """Refused: a look-up and a sum are one kernel already.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "compile", "has nothing to compile in a static encoder", "set compile=false", value=True
        )

    def check_packing(self, device: torch.device) -> None:
        """Nothing to refuse: there is no attention."""

    def identity(self) -> dict[str, Any]:
        """That it is a mean of vectors."""
        return {"static": "mean"}

    def describe(self) -> dict[str, Any]:
        """Architecture text, sizes and prompts, see `describe.py`."""
        rows, width = self.embedding.weight.shape
        bag = f"StaticEmbedding((embedding): EmbeddingBag({rows}, {width}, mode='mean'))"
        limit = self.tokenizer.max_length
        return {
            "architecture": architecture_text(static_modules(self), bag),
            "transformer": "StaticEmbedding",
            "attention": "none",
            "max_seq_length": limit if limit < UNLIMITED else "inf",
            "pooling": ["mean"],
            "include_prompt": True,
            **describe_encoder(self),
        }

    def save(self, path: str | Path, *, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write a sentence-transformers directory, see `write_directory`."""
        write_directory(self, static_modules(self), path, state_dict=state_dict)
