"""Describe an encoder in words and numbers, for tables and the model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inbatch import compat
from inbatch.encoder.packing import obstacle
from inbatch.encoder.parts import EncoderParts, TransformerParts
from inbatch.encoder.st_write import Module, transformer_modules


def architecture_text(modules: Sequence[Module], first: str) -> str:
    """Print the modules as sentence-transformers does in a model card.

    Example::

        SentenceTransformer(
          (0): Transformer({'max_seq_length': 128, ...}) with Transformer model: BertModel
          (1): Pooling({'word_embedding_dimension': 384, ...})
          (2): Normalize()
        )

    Args:
        modules: in order.
        first: how the first of them is printed.
    """
    printed = [first, *(f"{module.kind}({module.config or ''})" for module in modules[1:])]
    lines = [f"  ({number}): {line}" for number, line in enumerate(printed)]
    return "\n".join(["SentenceTransformer(", *lines, ")"])


def attention_text(encoder: TransformerParts) -> str:
    """Say how attention is computed, and why texts are padded where they are."""
    if encoder.packing == "always":
        return "varlen, without padding"
    if encoder.packing == "auto":
        return "varlen, without padding, in bf16 or fp16 on a GPU; else sdpa"
    problem = obstacle(encoder.backbone)
    used = f"{compat.attention_name(encoder.backbone)}, padded"
    return used if problem is None else f"{used} ({problem})"


def describe_transformer(encoder: TransformerParts) -> dict[str, Any]:
    """Collect plain values by name; sizes in parameters, tokens and dimensions."""
    modules = transformer_modules(encoder)
    name = type(encoder.backbone).__name__
    first = f"Transformer({modules[0].config}) with Transformer model: {name}"
    return {
        "architecture": architecture_text(modules, first),
        "transformer": name,
        "attention": attention_text(encoder),
        "max_seq_length": encoder.tokenizer.max_length,
        "pooling": list(encoder.pooling.modes),
        "include_prompt": encoder.pooling.include_prompt,
        "adapter": None if encoder.adapter is None else encoder.adapter.describe(),
        **describe_encoder(encoder),
    }


def describe_encoder(encoder: EncoderParts) -> dict[str, Any]:
    """The values that every kind of encoder has."""
    parameters = list(encoder.parameters())
    return {
        "base_model": encoder.base_model,
        "output_dimension": encoder.output_dimension,
        "similarity": encoder.similarity,
        "prompts": {name: text for name, text in encoder.prompts.items() if text},
        "default_prompt_name": encoder.default_prompt_name,
        "num_parameters": sum(p.numel() for p in parameters),
        "num_trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }
