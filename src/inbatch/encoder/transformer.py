"""The encoder around a transformer. Shape letters: n texts of a chunk, T tokens, D dimension."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inbatch import compat
from inbatch.batch.batch import Chunk
from inbatch.encoder.adapter_files import Adapter
from inbatch.encoder.backbone import position_limit, position_padding_id
from inbatch.encoder.compiled import widen, widened_shape
from inbatch.encoder.describe import describe_transformer
from inbatch.encoder.head import layer_text
from inbatch.encoder.masks import made_without_waiting
from inbatch.encoder.model import Encoder
from inbatch.encoder.packing import Packing, packed_tokens, packs
from inbatch.encoder.pooling import Pooling
from inbatch.encoder.st_write import transformer_modules, write_directory
from inbatch.encoder.token_layers import TokenHead, token_width
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.errors import ConfigError


@final
class TransformerEncoder(Encoder):
    """Transformer, pooling, and the layers after it.

    Args:
        backbone: a transformers model without pooler.
        tokenizer: what chunks for this encoder are made with.
        pooling: token embeddings to one embedding.
        token_head: layers behind the backbone and in front of the pooling, see `TokenHead`.
        pooler: the backbone's pooler weights, which `save` writes back.
        packing: when chunks go through the backbone without padding, see `packing.packs`.
        adapter: what `adapter.add_adapter` has put into the backbone.
        options: of `Encoder`: head, prompts, default_prompt_name, similarity, truncate_dim, base_model.

    Raises:
        ConfigError: see `Encoder` and `token_layers.token_width`.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: TextTokenizer,
        *,
        pooling: Pooling,
        token_head: Sequence[nn.Module] = (),
        pooler: Mapping[str, Tensor] | None = None,
        packing: Packing = "never",
        adapter: Adapter | None = None,
        **options: Any,
    ) -> None:
        width = token_width(backbone.config, token_head)
        super().__init__(tokenizer, width=width * len(pooling.modes), **options)
        self.token_width = width
        self.token_head = TokenHead(*token_head)
        self.backbone = backbone
        self.pooling = pooling
        self.pooler = dict(pooler or {})
        self.packing = packing
        self.adapter = adapter
        self._position_padding_id = position_padding_id(backbone)
        self._widest: int | None = None  # compiled: chunks are widened, to so many tokens at most

    def forward(self, chunk: Chunk) -> Tensor:
        """Embeddings [n, D] of a chunk on the same device, in the dtype of the computation."""
        tokens_nTD = self.token_head(self._token_embeddings(chunk), chunk.attention_mask)
        pooled_nD = self.pooling(tokens_nTD, chunk.attention_mask, chunk.prompt_lengths)
        embeddings_nD: Tensor = self.head(pooled_nD)
        return embeddings_nD

    def _token_embeddings(self, chunk: Chunk) -> Tensor:
        if self.packs_on(chunk.input_ids.device) and chunk.num_tokens != 0:
            return packed_tokens(
                self.backbone,
                chunk,
                position_padding_id=self._position_padding_id,
                states=self.token_head.states,
            )
        ids, mask = chunk.input_ids, chunk.attention_mask
        side = self.tokenizer.padding_side
        if self._widest is not None:
            pad_id = self.tokenizer.pad_id
            ids, mask = widen(chunk, max_width=self._widest, pad_id=pad_id, padding_side=side)
        with made_without_waiting(ids.device):
            output = self.backbone(input_ids=ids, attention_mask=mask)
        tokens_nTD = self.token_head.states(output)
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

    @property
    def token_table(self) -> nn.Embedding:
        """The transformer's input embeddings."""
        table = self.backbone.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    def identity(self) -> dict[str, Any]:
        """Architecture, configuration and pooling."""
        return {
            "transformer": type(self.backbone).__name__,
            "config": self.backbone.config.to_diff_dict(),
            "pooling": [*self.pooling.modes, f"include_prompt={self.pooling.include_prompt}"],
            **({} if self.adapter is None else {"adapter": self.adapter.settings}),
            **({"token_head": [*map(layer_text, self.token_head)]} if self.token_head else {}),
        }

    def describe(self) -> dict[str, Any]:
        """Architecture text, sizes, pooling and prompts, see `describe.py`."""
        return describe_transformer(self)

    def save(self, path: str | Path, *, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write a sentence-transformers directory, see `write_directory`."""
        write_directory(self, transformer_modules(self), path, state_dict=state_dict)
