"""Chunk of tokens -> embeddings. Shape letters: N texts, n texts of a chunk, D dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inbatch import compat
from inbatch.batch.batch import Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.encoder.backbone import position_limit, position_padding_id
from inbatch.encoder.compiled import widen, widened_shape
from inbatch.encoder.describe import describe_encoder
from inbatch.encoder.head import Dense
from inbatch.encoder.masks import made_without_waiting
from inbatch.encoder.packing import Packing, packed_tokens, packs
from inbatch.encoder.pooling import Pooling
from inbatch.encoder.st_read import SIMILARITIES
from inbatch.encoder.st_write import write_directory
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError, did_you_mean

_DOCUMENT_NAMES = ("document", "passage", "corpus")
_ENCODE_TEXTS = 65_536  # texts whose token ids and embeddings are held at once


class Encoder(nn.Module):
    """Transformer, pooling, and the layers after it.

    Args:
        backbone: a transformers model without pooler; its last hidden state is pooled.
        tokenizer: what chunks for this encoder are made with.
        pooling: token embeddings to one embedding.
        head: Dense and Normalize layers, in order.
        prompts: text to put in front, by name; "query" and "document" are those of the two roles.
        default_prompt_name: the prompt where no role is named.
        similarity: cosine, dot, euclidean or manhattan, to compare embeddings by. Saved with the
            model; in training the loss decides.
        truncate_dim: leading dimensions that `encode` keeps; `forward` keeps all.
        base_model: the name of the model that the weights were loaded from.
        pooler: the backbone's pooler weights, which `save` writes back.
        packing: when chunks go through the backbone without padding, see `packing.packs`.

    Raises:
        ConfigError: the name of the default prompt or of the similarity is unknown, the Dense sizes
            do not fit, or `truncate_dim` is out of range.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: TextTokenizer,
        *,
        pooling: Pooling,
        head: Sequence[nn.Module] = (),
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity: str = "cosine",
        truncate_dim: int | None = None,
        base_model: str | None = None,
        pooler: Mapping[str, Tensor] | None = None,
        packing: Packing = "never",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.head = nn.Sequential(*head)
        self.prompts = dict(prompts or {})
        self.default_prompt_name = default_prompt_name
        self.similarity = similarity
        self.truncate_dim = truncate_dim
        self.base_model = base_model
        self.pooler = dict(pooler or {})
        self.packing = packing
        self._position_padding_id = position_padding_id(backbone)
        self._widest: int | None = None  # compiled: chunks are widened, to so many tokens at most
        self.dimension = _dimension(pooling, backbone.config.hidden_size, head)
        self._check()

    def forward(self, chunk: Chunk) -> Tensor:
        """Embeddings [n, D] of a chunk on the same device, in the dtype of the computation."""
        pooled_nD = self.pooling(
            self._token_embeddings(chunk), chunk.attention_mask, chunk.prompt_lengths
        )
        embeddings_nD: Tensor = self.head(pooled_nD)
        return embeddings_nD

    def _token_embeddings(self, chunk: Chunk) -> Tensor:
        if self.packs_on(chunk.input_ids.device) and chunk.num_tokens != 0:
            return packed_tokens(
                self.backbone, chunk, position_padding_id=self._position_padding_id
            )
        ids, mask = chunk.input_ids, chunk.attention_mask
        side = self.tokenizer.padding_side
        if self._widest is not None:
            pad_id = self.tokenizer.pad_id
            ids, mask = widen(chunk, max_width=self._widest, pad_id=pad_id, padding_side=side)
        with made_without_waiting(ids.device):
            tokens_nTD: Tensor = self.backbone(input_ids=ids, attention_mask=mask)[0]
        num_texts, width = chunk.input_ids.shape
        return tokens_nTD[:num_texts, -width:] if side == "left" else tokens_nTD[:num_texts, :width]

    def compile_backbone(self, *, backend: str = "inductor") -> None:
        """Run the backbone through torch.compile from now on, see compiled.py.

        Raises:
            ConfigError: attention=varlen on a CPU, whose loop over texts makes no bounded number of graphs.
        """
        if self.packing == "always" and self.backbone.device.type == "cpu":
            raise ConfigError(
                "compile",
                "does not go with encoder.attention='varlen' on a CPU",
                "set encoder.attention=auto",
                value=True,
            )
        compat.keep_graphs_whole()
        # In place, since a wrapper would be a second submodule.
        self.backbone.compile(dynamic=True, backend=backend)
        self._widest = position_limit(self.backbone) or self.tokenizer.max_length

    def packs_on(self, device: torch.device) -> bool:
        """Tell whether chunks on a device are computed without padding, under the current autocast."""
        return packs(self.packing, device, self.backbone.dtype)

    def check_packing(self, device: torch.device) -> None:
        """Refuse a device that cannot compute without padding where attention=varlen asks for it.

        Raises:
            ConfigError: attention=varlen in float32 on a GPU, or on one without a kernel for it.
        """
        if self.packing == "always" and not self.packs_on(device):
            raise ConfigError(
                "encoder.attention",
                "needs bf16 or fp16, and a GPU of compute capability 8.0 or more",
                "set precision=bf16, or encoder.attention=auto",
                value="varlen",
            )

    def num_computed_tokens(self, chunk: Chunk) -> int:
        """Count the tokens that `forward` computes for a chunk, padding included where there is any."""
        if chunk.num_tokens is not None and self.packs_on(chunk.input_ids.device):
            return chunk.num_tokens
        if self._widest is not None:
            return math.prod(widened_shape(chunk.input_ids.shape, max_width=self._widest))
        return chunk.input_ids.numel()

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

    def save(self, path: str | Path, *, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write a sentence-transformers directory, see `write_directory`."""
        write_directory(self, path, state_dict=state_dict)

    def describe(self) -> dict[str, Any]:
        """Architecture text, sizes, pooling and prompts, see `describe_encoder`."""
        return describe_encoder(self)

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


def _dimension(pooling: Pooling, width: int, head: Sequence[nn.Module]) -> int:
    size = width * len(pooling.modes)
    for layer in head:
        if isinstance(layer, Dense):
            if layer.linear.in_features != size:
                raise ConfigError(
                    "dense",
                    f"takes {layer.linear.in_features} dimensions and gets {size} from "
                    f"pooling={list(pooling.modes)}",
                    "set dense.out_features, which makes a new layer",
                )
            size = layer.linear.out_features
    return size
