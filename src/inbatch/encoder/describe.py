"""Describe an encoder in words and numbers, for tables and the model card."""

from __future__ import annotations

from typing import Any

from inbatch import compat
from inbatch.encoder.packing import obstacle
from inbatch.encoder.parts import EncoderParts
from inbatch.encoder.st_write import module_configs


def architecture_text(encoder: EncoderParts) -> str:
    """Print the modules as sentence-transformers does in a model card.

    Example::

        SentenceTransformer(
          (0): Transformer({'max_seq_length': 128, ...}) with Transformer model: BertModel
          (1): Pooling({'word_embedding_dimension': 384, ...})
          (2): Normalize()
        )
    """
    lines = []
    for number, (kind, config) in enumerate(module_configs(encoder)):
        suffix = (
            f" with Transformer model: {type(encoder.backbone).__name__}" if number == 0 else ""
        )
        lines.append(f"  ({number}): {kind}({config or ''}){suffix}")
    return "\n".join(["SentenceTransformer(", *lines, ")"])


def attention_text(encoder: EncoderParts) -> str:
    """Say how attention is computed, and why texts are padded where they are."""
    if encoder.packing == "always":
        return "varlen, without padding"
    if encoder.packing == "auto":
        return "varlen, without padding, in bf16 or fp16 on a GPU; else sdpa"
    problem = obstacle(encoder.backbone)
    used = f"{compat.attention_name(encoder.backbone)}, padded"
    return used if problem is None else f"{used} ({problem})"


def describe_encoder(encoder: EncoderParts) -> dict[str, Any]:
    """Collect plain values by name; sizes in parameters, tokens and dimensions."""
    parameters = list(encoder.parameters())
    return {
        "architecture": architecture_text(encoder),
        "transformer": type(encoder.backbone).__name__,
        "base_model": encoder.base_model,
        "attention": attention_text(encoder),
        "max_seq_length": encoder.tokenizer.max_length,
        "output_dimension": encoder.output_dimension,
        "similarity": encoder.similarity,
        "pooling": list(encoder.pooling.modes),
        "include_prompt": encoder.pooling.include_prompt,
        "prompts": {name: text for name, text in encoder.prompts.items() if text},
        "default_prompt_name": encoder.default_prompt_name,
        "num_parameters": sum(p.numel() for p in parameters),
        "num_trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }
