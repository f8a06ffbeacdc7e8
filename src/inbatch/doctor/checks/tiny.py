"""A random encoder with hidden size 32 and a few texts; nothing is downloaded."""

from __future__ import annotations

import torch

from inbatch.batch.batch import Chunk
from inbatch.encoder import Encoder, build_encoder

_COLOURS = ("red", "green", "blue", "black", "white", "silver")
_THINGS = ("shoe", "coat", "phone case", "desk lamp with dimmer", "usb cable, 2 m", "hat")
_MODEL = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,  # so that attention counts as it does in a trained model
}


def texts(count: int) -> list[str]:
    """Distinct texts of different lengths."""
    kinds = [f"{colour} {thing}" for thing in _THINGS for colour in _COLOURS]
    return [f"{kinds[i % len(kinds)]} {i}" for i in range(count)]


def tiny_encoder(*, dropout: float = 0.0, attention: str = "auto") -> Encoder:
    """A two-layer BERT in float32 on the CPU; the same weights on every call and rank."""
    shares = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_encoder(
            config={**_MODEL, **shares},
            tokenizer={"train": {"vocab_size": 200}},
            texts=lambda: texts(72),
            attention=attention,
        )


def chunk_of(encoder: Encoder, given: list[str]) -> Chunk:
    """Texts as one padded chunk on the CPU."""
    ids, _ = encoder.tokenizer(given)
    lengths = torch.tensor([len(each) for each in ids])
    input_ids = torch.full((len(ids), int(lengths.max())), encoder.tokenizer.pad_id)
    for row, each in enumerate(ids):
        input_ids[row, : len(each)] = torch.tensor(each)
    mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    nothing = torch.zeros(len(ids), dtype=torch.int64)
    return Chunk(input_ids, mask, nothing, torch.arange(len(ids)), int(lengths.sum()))
