"""Architectures and modules whose embeddings are those of sentence-transformers: a table of differences.

    python scripts/equal_models.py

Each model is small and random. It is built here, saved, and loaded by sentence-transformers; texts of
different lengths go through both, in one batch and with a prompt. Printed is the largest difference of any
value. What is refused is printed with the sentence that refuses it.
"""

# ruff: noqa: E501, RUF024, SIM905 - tables

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer

from inbatch.encoder import Encoder, build_encoder, build_static_encoder
from inbatch.errors import ConfigError

LIMIT = 2e-6
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
GROUPED = {**SIZES, "num_key_value_heads": 2}
# Keys of each architecture; others have SIZES.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet"), SIZES),
    **dict.fromkeys(("nomic_bert", "modernbert", "deberta-v2", "ernie", "rembert", "roformer"), SIZES),
    "albert": {**SIZES, "embedding_size": 16},
    "mobilebert": {**SIZES, "embedding_size": 16, "intra_bottleneck_size": 16},
    "nystromformer": {**SIZES, "num_landmarks": 8, "segment_means_seq_len": 64},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 66},
    **dict.fromkeys(("llama", "mistral", "qwen2", "phi3", "olmo2", "granite", "smollm3"), GROUPED),
    **dict.fromkeys(("qwen3", "gemma", "gemma2", "gemma3_text"), {**GROUPED, "head_dim": 8}),
    "gpt_neox": SIZES,
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 66},
    **dict.fromkeys(("t5", "mt5", "umt5"), T5),
}  # fmt: skip
TURNED = ("llama", "mistral", "qwen3", "gemma2", "gemma3_text", "olmo2")
POOLINGS: tuple[str | list[str], ...] = (
    *("cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last_token"),
    *(["mean", "max"], ["cls", "mean", "max"], ["max", "cls"]),
)
HEADS: dict[str, dict[str, Any]] = {
    "Normalize": {"normalize": True},
    "Dense": {"dense": {"out_features": 16}},
    "Dense with Identity, no bias": {"dense": {"out_features": 16, "activation": "Identity", "bias": False}},
    "Dense beside its input": {"dense": {"out_features": 32, "residual": True}},
    "Dense beside its projected input": {"dense": {"out_features": 8, "residual": True}},
    "Dense, Normalize, cut to 8": {"dense": {"out_features": 16}, "normalize": True, "truncate_dim": 8},
    "a prompt that is not pooled": {"include_prompt": False},
    "similarity dot": {"similarity": "dot"},
}  # fmt: skip


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    print("| model | largest difference |\n|---|---|")
    equal, other = 0, []
    for name, options in cases():
        try:
            found = difference(made(**options))
        except ConfigError as error:
            other.append(f"- {name}: {error}")
            continue
        equal += found <= LIMIT
        print(f"| {name} | {found:.0e} |" + ("" if found <= LIMIT else " above the limit"))
    print(f"\n{equal} are equal within {LIMIT:.0e}.\n\nRefused:\n" + "\n".join(other))


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Names, and options of `build_encoder`."""
    for kind, sizes in ARCHITECTURES.items():
        length = {"max_length": 64} if sizes is T5 else {}
        yield kind, {"config": {"model_type": kind, **sizes}, **length}
    for kind in TURNED:
        config = {"model_type": kind, **ARCHITECTURES[kind]}
        yield f"{kind}, both directions", {"config": config, "bidirectional": True}
    bert = {"model_type": "bert", **SIZES}
    for pooling in POOLINGS:
        name = pooling if isinstance(pooling, str) else " and ".join(pooling)
        yield f"bert, pooling {name}", {"config": bert, "pooling": pooling}
    for name, options in HEADS.items():
        yield f"bert, {name}", {"config": bert, **options}
    yield "StaticEmbedding", {"dimension": 16}
    yield "StaticEmbedding, Dense, Normalize", {"dimension": 16, "dense": {"out_features": 8}, "normalize": True}  # fmt: skip


def made(**options: Any) -> Encoder:
    """A random encoder with a tokenizer of its own."""
    torch.manual_seed(0)
    build = build_encoder if "config" in options else build_static_encoder
    return build(
        tokenizer={"train": {"vocab_size": 120}}, texts=lambda: TEXTS * 5, prompts={"query": "find the offer: "}, **options
    ).eval()  # fmt: skip


WORDS = "red blue small wireless phone camera cable leather case 256gb watch pro max".split()
TEXTS = [
    " ".join((WORDS * 3)[start : start + length]) for start in range(9) for length in (1, 4, 11)
]


def difference(encoder: Encoder) -> float:
    """Of all values of all texts, without and with the prompt of queries."""
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(Path(folder) / "model")
        peer = SentenceTransformer(str(Path(folder) / "model"), device="cpu")
        pairs = [
            (encoder.encode(TEXTS), peer.encode(TEXTS)),
            (encoder.encode(TEXTS, role="query"), peer.encode_query(TEXTS)),
        ]
    return max(float(np.abs(np.asarray(ours) - theirs).max()) for ours, theirs in pairs)


if __name__ == "__main__":
    main()
