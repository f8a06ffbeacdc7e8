"""Chunk of tokens -> embeddings. Shape letters: N texts, n texts of a chunk, D dimension."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inbatch.batch.batch import Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.encoder.adapter_files import Adapter
from inbatch.encoder.head import Dense
from inbatch.encoder.st_read import SIMILARITIES
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError, did_you_mean

_DOCUMENT_NAMES = ("document", "passage", "corpus")
_ENCODE_TEXTS = 65_536  # texts whose token ids and embeddings are held at once


class Encoder(nn.Module, ABC):
    """Base class of encoders: tokens to one vector per text, and the layers after it.

    `TransformerEncoder` pools the states of a transformer, `StaticEncoder` averages vectors of tokens. A
    subclass makes the vector of a text in `forward` and puts `head` behind it.

    Args:
        tokenizer: what chunks for this encoder are made with.
        width: dimensions of the vector before the head.
        head: Dense and Normalize layers, in order.
        prompts: text to put in front, by name; "query" and "document" are those of the two roles.
        default_prompt_name: the prompt where no role is named.
        similarity: cosine, dot, euclidean or manhattan, to compare embeddings by. Saved with the
            model; in training the loss decides.
        truncate_dim: leading dimensions that `encode` keeps; `forward` keeps all.
        base_model: the name of the model that the weights were loaded from.

    Raises:
        ConfigError: the name of the default prompt or of the similarity is unknown, the Dense sizes
            do not fit, or `truncate_dim` is out of range.
    """

    adapter: Adapter | None = None  # what trains in place of the transformer's weights

    def __init__(
        self,
        tokenizer: TextTokenizer,
        *,
        width: int,
        head: Sequence[nn.Module] = (),
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity: str = "cosine",
        truncate_dim: int | None = None,
        base_model: str | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.width = width
        self.head = nn.Sequential(*head)
        self.prompts = dict(prompts or {})
        self.default_prompt_name = default_prompt_name
        self.similarity = similarity
        self.truncate_dim = truncate_dim
        self.base_model = base_model
        self.dimension = _dimension(width, head)
        self._check()

    @abstractmethod
    def forward(self, chunk: Chunk) -> Tensor:
        """Embeddings [n, D] of a chunk on the same device, in the dtype of the computation."""

    @property
    @abstractmethod
    def token_table(self) -> nn.Embedding | None:
        """The table whose lookups the chunks of a batch may share, see lookup.py; None: there is none."""

    @abstractmethod
    def num_computed_tokens(self, chunk: Chunk) -> int:
        """Count the tokens that `forward` computes for a chunk, padding included where there is any."""

    @abstractmethod
    def compile_backbone(self, *, backend: str = "inductor") -> None:
        """Run what is before the head through torch.compile from now on.

        Raises:
            ConfigError: it cannot be compiled.
        """

    @abstractmethod
    def check_packing(self, device: torch.device) -> None:
        """Refuse a device that cannot compute as the encoder was asked to.

        Raises:
            ConfigError: the setting that asks for it.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What an embedding depends on besides weights, tokenizer, head and prompt, as JSON-able values."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Architecture text, sizes, pooling and prompts, see `describe.py`."""

    @abstractmethod
    def save(self, path: str | Path, *, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write a sentence-transformers directory, see `write_directory`."""

    @torch.no_grad()
    def encode(
        self,
        texts: Sequence[str],
        *,
        role: str | None = None,
        prompt: str | None = None,
        chunk_tokens: int = 8192,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Embeddings [N, D] of texts, float32 on the CPU, without gradient and in evaluation mode.

        Args:
            texts: N texts.
            role: "query", "document" ("passage", "corpus") or another prompt's name; None takes the
                default prompt. Equals sentence-transformers' `encode_query`, `encode_document` and
                `encode`.
            prompt: in place of the role's.
            chunk_tokens: most computed tokens of one forward; a longer text goes alone.
            device: moves the encoder there first; None leaves it where it is.
        """
        if device is not None:
            self.to(device)
        prompt = self.prompt_for(role) if prompt is None else prompt
        training = self.training
        self.eval()
        try:
            starts = range(0, len(texts), _ENCODE_TEXTS)
            parts = [
                self._encode(texts[start : start + _ENCODE_TEXTS], prompt, chunk_tokens)
                for start in starts
            ]
        finally:
            self.train(training)
        return torch.cat(parts) if parts else torch.empty(0, self.output_dimension)

    def _encode(self, texts: Sequence[str], prompt: str, chunk_tokens: int) -> Tensor:
        token_ids, prompt_length = self.tokenizer(texts, prompt)
        chunks = make_chunks(
            token_ids,
            [prompt_length] * len(token_ids),
            chunk_rows=None,
            chunk_tokens=max(chunk_tokens, max(map(len, token_ids))),
            pad_id=self.tokenizer.pad_id,
            padding_side=self.tokenizer.padding_side,
        )
        device = next(self.parameters()).device
        # Results stay on the device until the last chunk, so that no chunk waits for a copy.
        sorted_ND = torch.cat([self(chunk.to(device))[:, : self.truncate_dim] for chunk in chunks])
        embeddings_ND = torch.empty(sorted_ND.shape)
        embeddings_ND[torch.cat([chunk.index for chunk in chunks])] = sorted_ND.float().cpu()
        return embeddings_ND

    def prompt_for(self, role: str | None) -> str:
        """The prompt of a role, "" where it has none; None names the default prompt.

        Raises:
            ConfigError: `role` is neither query, document, passage, corpus nor a prompt's name.
        """
        if role is None:
            return self.prompts[self.default_prompt_name] if self.default_prompt_name else ""
        if role == "query":
            return self.prompts.get(role, "")
        if role in _DOCUMENT_NAMES:
            names = (role, *_DOCUMENT_NAMES)
            return next((self.prompts[name] for name in names if self.prompts.get(name)), "")
        if role not in self.prompts:
            known = ("query", *_DOCUMENT_NAMES, *self.prompts)
            raise ConfigError(
                "role",
                "is neither a role nor the name of a prompt",
                did_you_mean(role, known) or f"choose one of {', '.join(dict.fromkeys(known))}",
                value=role,
            )
        return self.prompts[role]

    @property
    def role_prompts(self) -> dict[str, str]:
        """The prompts of query and document, the two roles of training, where they are not empty."""
        found = {role: self.prompt_for(role) for role in ("query", "document")}
        return {role: prompt for role, prompt in found.items() if prompt}

    @property
    def output_dimension(self) -> int:
        """Dimensions of the embeddings that `encode` returns."""
        return self.truncate_dim or self.dimension

    def _check(self) -> None:
        if self.similarity not in SIMILARITIES:
            raise ConfigError(
                "similarity",
                f"is not one of {', '.join(SIMILARITIES)}",
                did_you_mean(self.similarity, SIMILARITIES) or "set one of them",
                value=self.similarity,
            )
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise ConfigError(
                "default_prompt_name",
                f"is not among the prompts {[*self.prompts]}",
                "name one of them, or add it to prompts",
                value=self.default_prompt_name,
            )
        if self.truncate_dim is not None and not 1 <= self.truncate_dim <= self.dimension:
            raise ConfigError(
                "truncate_dim",
                "is out of range",
                f"set a number from 1 to {self.dimension}",
                value=self.truncate_dim,
            )


def _dimension(width: int, head: Sequence[nn.Module]) -> int:
    size = width
    for layer in head:
        if isinstance(layer, Dense):
            if layer.linear.in_features != size:
                raise ConfigError(
                    "dense",
                    f"takes {layer.linear.in_features} dimensions and gets {size}",
                    "set dense.out_features, which makes a new layer",
                )
            size = layer.linear.out_features
    return size
