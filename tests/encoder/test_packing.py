"""Texts without padding against padded ones, architecture by architecture, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_architectures import SIZES
from torch import Tensor

from helpers.tiny import tiny_texts
from inbatch.batch.batch import Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.encoder import Encoder, build_encoder
from inbatch.encoder.packing import pack
from inbatch.encoder.pooling import POOLING_MODES
from inbatch.encoder.varlen import (
    TextLengths,
    attention_forward,
    packed_attention,
    torch_attention,
)
from inbatch.errors import ConfigError

PACKED = ["bert", "distilbert", "nomic_bert", "roberta", "xlm-roberta", "modernbert"]
PROMPT = 2


def make(model_type: str, *, dropout: float = 0.0, layers: int = 2, **options: Any) -> Encoder:
    """A random encoder in float64; ModernBERT sees two tokens to either side in its second layer."""
    config = {**SIZES, "model_type": model_type, "num_hidden_layers": layers}
    if model_type == "distilbert":
        config["hidden_dim"] = config.pop("intermediate_size")
        config |= {"dropout": dropout, "attention_dropout": dropout}
    elif model_type == "modernbert":
        config |= {"local_attention": 4}
        config |= {"attention_dropout": dropout, "mlp_dropout": dropout}
    else:
        config |= {"attention_probs_dropout_prob": dropout, "hidden_dropout_prob": dropout}
    torch.manual_seed(0)
    return build_encoder(
        config=config,
        tokenizer={"train": {"vocab_size": 120}},
        texts=lambda: tiny_texts(100),
        **{"attention": "varlen", **options},
    ).double()


def make_chunk(encoder: Encoder, *, side: Any = "right", texts: list[str] | None = None) -> Chunk:
    """Texts of different lengths, odd ones among them, in one chunk."""
    texts = (
        ["red", *tiny_texts(7, seed=1, max_words=24), "mini pro max"] if texts is None else texts
    )
    ids, _ = encoder.tokenizer(texts)
    options = {"chunk_rows": None, "chunk_tokens": None, "pad_id": encoder.tokenizer.pad_id}
    (chunk,) = make_chunks(ids, [PROMPT] * len(ids), padding_side=side, **options)
    assert chunk.num_tokens == int(chunk.attention_mask.sum()) < chunk.input_ids.numel()
    return chunk


def embed(encoder: Encoder, chunk: Chunk, packing: Any) -> tuple[Tensor, list[Tensor]]:
    """Embeddings, and gradients of a function of them that treats every value differently."""
    encoder.packing = packing
    encoder.zero_grad()
    embeddings = encoder(chunk)
    weights = torch.linspace(-1, 1, embeddings.numel(), dtype=torch.float64)
    (embeddings * weights.to(embeddings.device).view_as(embeddings)).sum().backward()
    return embeddings.detach(), [p.grad.clone() for p in encoder.parameters() if p.requires_grad]


@pytest.mark.parametrize("model_type", PACKED)
def test_packed_equals_padded(model_type: str) -> None:
    every_mode = {"pooling": [*POOLING_MODES], "include_prompt": False}
    encoder = make(model_type, **every_mode, dense={"out_features": 8})
    chunk = make_chunk(encoder)
    padded, padded_gradients = embed(encoder, chunk, "never")
    packed, packed_gradients = embed(encoder, chunk, "always")
    assert padded.std() > 1e-2
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-12)
    for (name, _), a, b in zip(
        encoder.named_parameters(), packed_gradients, padded_gradients, strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11, msg=name)


@pytest.mark.parametrize("model_type", ["nomic_bert", "xlm-roberta"])
def test_padding_in_front(model_type: str) -> None:
    encoder = make(model_type, pooling="last_token")
    chunk = make_chunk(encoder, side="left")
    (padded, _), (packed, _) = (embed(encoder, chunk, how) for how in ("never", "always"))
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-8)  # rotations are in float32


@pytest.mark.parametrize("model_type", PACKED)
def test_texts_do_not_see_each_other(model_type: str) -> None:
    encoder = make(model_type).eval()
    texts = tiny_texts(6, seed=1, min_words=5, max_words=24)
    before = make_chunk(encoder, texts=texts)
    after = make_chunk(encoder, texts=[*texts[:2], "gold " * len(texts[2].split()), *texts[3:]])
    with torch.no_grad():
        a, b = (encoder(chunk)[chunk.index.argsort()] for chunk in (before, after))
    assert (a[2] - b[2]).abs().max() > 1e-3
    others = [0, 1, 3, 4, 5]
    assert (a[others] - b[others]).abs().max() < 1e-12


@pytest.mark.parametrize("model_type", PACKED)
def test_positions_alone_would_let_texts_see_each_other(model_type: str) -> None:
    encoder = make(model_type).eval()
    chunk = make_chunk(encoder)
    packed = pack(chunk, position_padding_id=encoder._position_padding_id)
    alone = {"input_ids": packed.input_ids, "position_ids": packed.position_ids}
    with torch.no_grad():
        wrong = encoder.backbone(**alone)[0][0]
        right = encoder._token_embeddings(chunk).flatten(0, 1)[packed.place]
    assert (wrong - right).abs().max() > 1e-3


def test_positions_restart() -> None:
    encoder = make("xlm-roberta")
    packed = pack(make_chunk(encoder, texts=["red", "red blue"]), position_padding_id=0)
    positions, offsets = packed.position_ids[0].tolist(), packed.texts.offsets.tolist()
    assert [positions[start] for start in offsets[:-1]] == [1, 1]
    plain = pack(make_chunk(encoder, texts=["red", "red blue"]), position_padding_id=None)
    assert plain.position_ids[0].tolist() == [p - 1 for p in positions]
    assert encoder._position_padding_id == encoder.tokenizer.pad_id


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
def test_dropout_is_replayed(model_type: str) -> None:
    encoder = make(model_type, dropout=0.3).train()
    chunk = make_chunk(encoder)
    draws = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        draws.append(encoder(chunk))
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])


def test_gradient_checkpointing() -> None:
    plain, saving = make("bert"), make("bert", gradient_checkpointing=True).train()
    saving.load_state_dict(plain.state_dict())
    chunk = make_chunk(plain)
    for a, b in zip(embed(plain, chunk, "always")[1], embed(saving, chunk, "always")[1]):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_what_is_computed() -> None:
    encoder = make("bert", attention="auto")
    chunk = make_chunk(encoder)
    assert encoder.num_computed_tokens(chunk) == chunk.input_ids.numel()
    assert encoder.describe()["attention"].startswith("varlen, without padding, in bf16")
    encoder.packing = "always"
    assert encoder.num_computed_tokens(chunk) == chunk.num_tokens
    encoder.check_packing(torch.device("cpu"))
    uncounted = chunk._replace(num_tokens=None)
    assert torch.equal(encoder(uncounted), encoder(chunk))


def test_models_that_stay_padded(tmp_path: Path) -> None:
    mpnet = make("mpnet", attention="auto")
    assert mpnet.packing == "never"
    expected = "eager, padded (MPNetModel has no attention without padding)"
    assert mpnet.describe()["attention"] == expected
    with pytest.raises(ConfigError, match=r"MPNetModel has no attention without padding\): set"):
        make("mpnet")
    assert make("bert", attention="sdpa").describe()["attention"] == "sdpa, padded"
    with pytest.raises(ConfigError, match=r"heads of 8, 16, \.\.\. 256 dimensions, not 4"):
        build_encoder(
            config={**SIZES, "model_type": "bert", "num_attention_heads": 8},
            tokenizer={"train": {"vocab_size": 120}},
            texts=lambda: tiny_texts(100),
            attention="varlen",
        )
    packed = make("bert").float()
    packed.save(tmp_path / "model")
    assert "varlen" not in (tmp_path / "model" / "config.json").read_text()
    again = build_encoder(str(tmp_path / "model"), attention="sdpa")
    torch.testing.assert_close(again.encode(["red"]), packed.encode(["red"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("reach", [None, 2])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_torch_has_the_kernel_with_its_gradient(
    dropout: float, reach: int | None, causal: bool
) -> None:
    """The call is checked on tensors without data; its values need a GPU (test_packing_gpu.py)."""
    options = {"dtype": torch.bfloat16, "device": "meta", "requires_grad": True}
    heads = [torch.empty(20, 4, 8, **options) for _ in range(3)]
    texts = TextLengths(torch.empty(3, dtype=torch.int32, device="meta"), 12)
    options = {"dropout": dropout, "scale": 0.3, "reach": reach, "causal": causal}
    output = torch_attention(*heads, texts, **options)
    output.sum().backward()
    assert output.shape == (20, 4, 8)
    assert all(x.grad is not None and x.grad.shape == x.shape for x in heads)


def test_packed_attention_takes_the_models_own_scale() -> None:
    """An architecture need not divide by the root of the head's size."""
    module = torch.nn.Module()
    heads = [torch.randn(1, 2, 5, 8, dtype=torch.float64) for _ in range(3)]
    offsets = torch.tensor([0, 5], dtype=torch.int32)
    for scaling, scale in ((0.9, 0.9), (None, 8**-0.5)):
        packed, _ = attention_forward(
            *(module, *heads, None), scaling=scaling, cu_seq_lens_q=offsets, max_length_q=5
        )
        padded, _ = attention_forward(
            *(module, *heads, torch.ones(1, 1, 5, 5, dtype=torch.bool)), scaling=scale
        )
        torch.testing.assert_close(packed, padded)


@pytest.mark.parametrize("causal", [False, True])
def test_window_of_the_twin(causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(9, 1, 8, generator=generator) for _ in range(3))
    texts = TextLengths(torch.tensor([0, 9], dtype=torch.int32), 9)
    scores = q[:, 0] @ k[:, 0].T
    far = (torch.arange(9)[:, None] - torch.arange(9)[None, :]).abs() > 2
    if causal:
        far |= torch.arange(9)[:, None] < torch.arange(9)[None, :]
    wanted = scores.masked_fill(far, float("-inf")).softmax(-1) @ v[:, 0]
    found = packed_attention(q, k, v, texts, dropout=0.0, scale=1.0, reach=2, causal=causal)
    torch.testing.assert_close(found[:, 0], wanted)
