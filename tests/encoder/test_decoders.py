"""Decoders as encoders: causal or not, padded or packed, and as sentence-transformers loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from helpers.st_oracle import assert_same_model
from helpers.tiny import tiny_texts, tiny_tokenizer
from inbatch.batch.batch import Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.encoder import Encoder, build_encoder
from inbatch.encoder.packing import obstacle
from inbatch.errors import ConfigError

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "head_dim": 8,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "qwen2": {},
    "qwen3": {},
    "gemma3_text": {"sliding_window": 6},
}
PACKED = ("llama", "mistral", "qwen2", "qwen3")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Language models with random weights, padded in front."""
    folder, tokenizer = tmp_path_factory.mktemp("decoders"), tiny_tokenizer()
    for kind, more in KINDS.items():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, vocab_size=len(tokenizer) + 8, **SIZES, **more)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / kind)
        tokenizer.save_pretrained(folder / kind)
        settings = folder / kind / "tokenizer_config.json"
        given = {"padding_side": "left", "tokenizer_class": "PreTrainedTokenizerFast"}
        settings.write_text(json.dumps(json.loads(settings.read_text()) | given))
    return {kind: folder / kind for kind in KINDS}


def chunk_of(encoder: Encoder, texts: list[str]) -> Chunk:
    ids, _ = encoder.tokenizer(texts)
    (chunk,) = make_chunks(
        ids,
        [0] * len(ids),
        chunk_rows=None,
        chunk_tokens=None,
        pad_id=encoder.tokenizer.pad_id,
        padding_side=encoder.tokenizer.padding_side,
    )
    return chunk


def states(encoder: Encoder, ids: list[int]) -> Tensor:
    """[T, D] of one text."""
    with torch.no_grad():
        return encoder.backbone(input_ids=torch.tensor([ids]))[0][0]  # type: ignore[operator]


@pytest.mark.parametrize("bidirectional", [None, False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_later_token_is_seen_only_if_asked_for(
    tmp_path: Path, saved: dict[str, Path], kind: str, bidirectional: bool | None
) -> None:
    encoder = build_encoder(str(saved[kind]), bidirectional=bidirectional).eval()
    assert encoder.pooling.modes == (("mean",) if bidirectional else ("last_token",))  # type: ignore[union-attr]
    first, other = states(encoder, [5, 6, 7, 8]), states(encoder, [5, 6, 7, 9])
    assert torch.equal(first[:3], other[:3]) == (not bidirectional)
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")
    again = build_encoder(str(tmp_path / "model")).eval()
    assert torch.equal(states(again, [5, 6, 7, 8]), first)


@pytest.mark.parametrize("pooling", ["last_token", "mean"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", PACKED)
def test_texts_without_padding(
    saved: dict[str, Path], kind: str, bidirectional: bool, pooling: str
) -> None:
    if kind == "mistral" and bidirectional:
        with pytest.raises(ConfigError, match="window of MistralModel goes in both directions"):
            build_encoder(str(saved[kind]), attention="varlen", bidirectional=True)
        return
    options = {"bidirectional": bidirectional, "pooling": pooling, "tokenizer": str(saved["llama"])}
    padded = build_encoder(str(saved[kind]), attention="sdpa", **options)  # type: ignore[arg-type]
    packed = build_encoder(str(saved[kind]), attention="varlen", **options)  # type: ignore[arg-type]
    chunk = chunk_of(padded, tiny_texts(9, seed=3))
    assert chunk.attention_mask[:, 0].min() == 0, "padded in front"
    outputs = [encoder(chunk) for encoder in (padded, packed)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=2e-6)
    for output in outputs:
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    for (name, p), q in zip(packed.named_parameters(), padded.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert (p.grad - q.grad).norm() <= 2e-6 * q.grad.norm(), name


def test_positions_that_follow_the_longest_text_are_not_packed(saved: dict[str, Path]) -> None:
    encoder = build_encoder(str(saved["llama"]))
    assert obstacle(encoder.backbone) is None  # type: ignore[arg-type]
    encoder.backbone.config.rope_parameters["rope_type"] = "dynamic"  # type: ignore[union-attr, index]
    assert "follow the longest text" in str(obstacle(encoder.backbone))  # type: ignore[arg-type]


def test_what_cannot_be_is_refused() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    options: dict[str, Any] = {
        "config": {"model_type": "mpnet", "intermediate_size": 64, **sizes},
        "tokenizer": {"train": {"vocab_size": 120}},
        "texts": lambda: tiny_texts(50),
    }
    with pytest.raises(ConfigError, match=r"bidirectional=false.*MPNetModel.*see later ones"):
        build_encoder(**options, bidirectional=False)
    assert build_encoder(**options, bidirectional=True).pooling.modes == ("mean",)  # type: ignore[union-attr]


def test_a_prompt_in_front_is_left_out_of_the_pooling(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    encoder = build_encoder(
        str(saved["qwen3"]),
        bidirectional=True,
        include_prompt=False,
        prompts={"query": "Instruct: find the offer\nQuery: ", "document": ""},
    )
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")
    role = encoder.encode(["red phone"], role="query")
    assert not torch.allclose(torch.as_tensor(role), torch.as_tensor(encoder.encode(["red phone"])))
