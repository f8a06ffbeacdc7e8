"""Tiny random models of each architecture: saved, loaded by both, trained, frozen, checkpointed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.st_oracle import assert_same_model
from helpers.tiny import tiny_texts, tiny_tokenizer
from inbatch.batch.batch import Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.encoder import Encoder, build_encoder
from inbatch.encoder.shared_casts import shared_casts
from inbatch.errors import ConfigError

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
ARCHITECTURES = ["bert", "distilbert", "mpnet", "nomic_bert", "xlm-roberta", "modernbert"]


def make(model_type: str, **options: Any) -> Encoder:
    sizes = dict(SIZES)
    if model_type == "distilbert":
        sizes["hidden_dim"] = sizes.pop("intermediate_size")
    torch.manual_seed(0)
    return build_encoder(
        config={"model_type": model_type, **sizes},
        tokenizer={"train": {"vocab_size": 120}},
        texts=lambda: tiny_texts(100),
        **options,
    )


def make_chunk(encoder: Encoder) -> Chunk:
    ids, _ = encoder.tokenizer(tiny_texts(8, seed=1))
    options = {"chunk_rows": None, "chunk_tokens": None, "pad_id": encoder.tokenizer.pad_id}
    return make_chunks(ids, [0] * len(ids), **options)[0]


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_saved_model_gives_the_same_embeddings(model_type: str, tmp_path: Path) -> None:
    encoder = make(model_type, prompts={"query": "red phone "})
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")
    assert_same_model(build_encoder(str(tmp_path / "model")), tmp_path / "model")
    expected = 64 if model_type in ("mpnet", "xlm-roberta") else 66
    assert encoder.tokenizer.max_length == expected
    attention = encoder.backbone.config._attn_implementation
    assert attention == ("eager" if model_type == "mpnet" else "inbatch_varlen")


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_every_parameter_gets_a_gradient(model_type: str) -> None:
    encoder = make(model_type, dense={"out_features": 8})
    chunk = make_chunk(encoder)
    encoder(chunk).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_training_changes_no_buffer(model_type: str) -> None:
    """So DDP need not send them before each step."""
    encoder = make(model_type).train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder(make_chunk(encoder)).square().sum().backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in encoder.named_buffers())


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_casts_that_are_shared_change_no_bit(model_type: str) -> None:
    encoder = make(model_type, dense={"out_features": 8}).train()
    chunk, found = make_chunk(encoder), []
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        for casts in ({}, shared_casts(encoder, torch.device("cpu"))):
            encoder.zero_grad()
            for seed in (1, 2):  # two backwards through the same casts
                torch.manual_seed(seed)
                output = functional_call(encoder, casts, (chunk,), tie_weights=False)
                output.float().square().sum().backward()
            found.append({name: p.grad.clone() for name, p in encoder.named_parameters()})  # type: ignore[union-attr]
    assert len(casts) > 8
    assert [name for name in found[0] if not torch.equal(found[0][name], found[1][name])] == []


@pytest.mark.parametrize("model_type", [m for m in ARCHITECTURES if m != "mpnet"])
def test_gradient_checkpointing_keeps_the_gradients(model_type: str) -> None:
    plain, saving = make(model_type), make(model_type, gradient_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    chunk = make_chunk(plain)
    for encoder in (plain, saving):
        encoder.train()
        torch.manual_seed(7)
        encoder(chunk).square().sum().backward()
    assert saving.backbone.is_gradient_checkpointing
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_gradient_checkpointing_needs_support() -> None:
    with pytest.raises(ConfigError, match="gradient_checkpointing=true is not supported"):
        make("mpnet", gradient_checkpointing=True)


def test_attention_must_be_supported() -> None:
    assert make("bert", attention="eager").backbone.config._attn_implementation == "eager"
    with pytest.raises(ConfigError, match="MPNetModel does not support"):
        make("mpnet", attention="sdpa")
    with pytest.raises(ConfigError, match="fastest"):
        make("bert", attention="fastest")


def test_freeze() -> None:
    encoder = make("bert", freeze=[r"\.embeddings\.", r"layer\.0\."])
    frozen = [name for name, p in encoder.named_parameters() if not p.requires_grad]
    assert frozen
    assert all("embeddings" in name or "layer.0." in name for name in frozen)
    assert any("layer.1." in name for name, p in encoder.named_parameters() if p.requires_grad)
    with pytest.raises(ConfigError, match=r"freeze='layer\.9' matches no parameter"):
        make("bert", freeze=["layer.9"])
    with pytest.raises(ConfigError, match=r"freeze='\(' is not a regular expression"):
        make("bert", freeze=["("])


def test_dtype() -> None:
    encoder = make("bert", dtype="bfloat16", dense={"out_features": 8})
    assert {p.dtype for p in encoder.parameters()} == {torch.bfloat16}
    assert encoder(make_chunk(encoder)).dtype == torch.bfloat16
    assert encoder.encode(["red"]).dtype == torch.float32
    with pytest.raises(ConfigError, match="dtype='half'"):
        make("bert", dtype="half")


def test_same_seed_gives_the_same_weights() -> None:
    first, second = make("modernbert").state_dict(), make("modernbert").state_dict()
    assert all(torch.equal(second[name], value) for name, value in first.items())


def test_left_padding_of_a_causal_model(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, pad_token_id=0, **SIZES)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "causal")
    tokenizer.save_pretrained(tmp_path / "causal")
    settings = tmp_path / "causal/tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "padding_side": "left"}))
    encoder = build_encoder(str(tmp_path / "causal"), prompts={"query": "red phone "})
    assert encoder.pooling.modes == ("last_token",)
    assert encoder.tokenizer.padding_side == "left"
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")
    assert build_encoder(str(tmp_path / "model")).tokenizer.padding_side == "left"
