"""What a collator of sentence-transformers gives a loss, as chunks of similar lengths.

Shape letters: C columns, b rows, n texts of a chunk, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from inbatch.batch.batch import Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.errors import ConfigError

Features = Mapping[str, Any]
_TOKENS = ("input_ids", "attention_mask")


def token_lists(features: Features) -> list[list[int]]:
    """The token ids of each text of a column, without padding.

    Raises:
        ConfigError: the features are not those of padded texts.
    """
    if "cu_seq_lens_q" in features or any(key not in features for key in _TOKENS):
        raise ConfigError(
            "sentence_features",
            f"has {', '.join(sorted(map(str, features)))}, not padded texts",
            "train on texts, and leave unpad_inputs unset",
        )
    ids, mask = (features[key].cpu() for key in _TOKENS)
    return [row[kept].tolist() for row, kept in zip(ids, mask.bool())]


def padding_side(columns: Sequence[Features]) -> Literal["left", "right"]:
    """Where the texts of a batch are padded."""
    fronts = (features["attention_mask"][:, 0].min() for features in columns)
    return "left" if any(not int(front) for front in fronts) else "right"


def chunks_of(
    columns: Sequence[Features],
    tokens: Sequence[Sequence[list[int]]],
    *,
    rows: int | None,
    most_tokens: int | None,
    pad_id: int,
) -> list[Chunk]:
    """Chunks of all texts of a batch, in the flat order ``column * b + row``, on the columns' device.

    Args:
        columns: features of each.
        tokens: token ids of each column's texts.
        rows: most texts of a chunk.
        most_tokens: most computed tokens of a chunk, at least those of the longest text.
        pad_id: fills the rest of a row.
    """
    prompts = [int(features.get("prompt_length", 0)) for features in columns]
    flat = [ids for column in tokens for ids in column]
    lengths = [length for length, column in zip(prompts, tokens) for _ in column]
    longest = max(map(len, flat))
    made = make_chunks(
        flat,
        lengths,
        chunk_rows=rows,
        chunk_tokens=None if most_tokens is None else max(most_tokens, longest),
        pad_id=pad_id,
        padding_side=padding_side(columns),
    )
    device = columns[0]["input_ids"].device
    return [chunk.to(device) for chunk in made]


def features_of(chunk: Chunk, like: Features) -> dict[str, Any]:
    """A chunk as a model of sentence-transformers takes it, with the further inputs that a column had."""
    found: dict[str, Any] = {"input_ids": chunk.input_ids, "attention_mask": chunk.attention_mask}
    if "token_type_ids" in like:  # zeros for single texts
        found["token_type_ids"] = torch.zeros_like(chunk.input_ids)
    if "prompt_length" in like:
        found["prompt_length"] = chunk.prompt_lengths
    if "modality" in like:
        found["modality"] = like["modality"]
    return found
