"""Architectures and modules whose embeddings are those of sentence-transformers: a table of differences.

    python scripts/equal_models.py [--only WORD]

Each model is small and random. It is built here, saved, and loaded by sentence-transformers; texts of
different lengths go through both, in one batch (behind a CNN one by one, see `CNN`) and with a prompt. Printed is the largest difference of any
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
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import CNN, Pooling, WeightedLayerPooling
from torch import nn

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


# Modules between the transformer and a mean of its tokens, and the width behind them.
BETWEEN: dict[str, tuple[list[nn.Module], int]] = {
    "CNN": ([CNN(32, 8, [1, 3, 5])], 24),
    "Dense of tokens, two CNN": ([Dense(32, 16, module_input_name="token_embeddings"), CNN(16, 8, [3]), CNN(8, 4, [5, 7])], 8),
    "WeightedLayerPooling": ([WeightedLayerPooling(32, 2, 1)], 32),
    "WeightedLayerPooling, CNN": ([WeightedLayerPooling(32, 2, 0), CNN(32, 8, [3])], 8),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="", help="models whose name has this word")
    only = parser.parse_args().only
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    print("| model | largest difference |\n|---|---|")
    equal, other = 0, []
    for name, options in cases():
        if only not in name:
            continue
        try:
            found = difference(made(**options), batch_size=1 if "CNN" in name else 32)
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
    for name in BETWEEN:
        yield f"bert, {name}", {"config": {**bert, "output_hidden_states": True}, "between": name}
    yield "StaticEmbedding", {"dimension": 16}
    yield "StaticEmbedding, Dense, Normalize", {"dimension": 16, "dense": {"out_features": 8}, "normalize": True}  # fmt: skip


def made(*, between: str | None = None, **options: Any) -> Encoder:
    """A random encoder with a tokenizer of its own, and with modules between that only saved models have."""
    torch.manual_seed(0)
    build = build_encoder if "config" in options else build_static_encoder
    encoder = build(
        tokenizer={"train": {"vocab_size": 120}}, texts=lambda: TEXTS * 5, prompts=PROMPTS, **options
    ).eval()  # fmt: skip
    if between is None:
        return encoder
    layers, width = BETWEEN[between]
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(Path(folder) / "plain")
        modules = [Transformer(str(Path(folder) / "plain")), *layers, Pooling(width, "mean")]
        SentenceTransformer(modules=modules, device="cpu").save(str(Path(folder) / "model"))
        return build_encoder(str(Path(folder) / "model"), prompts=PROMPTS).eval()


PROMPTS = {"query": "find the offer: "}
WORDS = "red blue small wireless phone camera cable leather case 256gb watch pro max".split()
TEXTS = [
    " ".join((WORDS * 3)[start : start + length]) for start in range(9) for length in (1, 4, 11)
]


def difference(encoder: Encoder, *, batch_size: int) -> float:
    """Of all values of all texts, without and with the prompt of queries; `batch_size` is that of the peer."""
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(Path(folder) / "model")
        peer = SentenceTransformer(str(Path(folder) / "model"), device="cpu")
        pairs = [
            (encoder.encode(TEXTS), peer.encode(TEXTS, batch_size=batch_size)),
            (encoder.encode(TEXTS, role="query"), peer.encode_query(TEXTS, batch_size=batch_size)),
        ]
    return max(float(np.abs(np.asarray(ours) - theirs).max()) for ours, theirs in pairs)


if __name__ == "__main__":
    main()
