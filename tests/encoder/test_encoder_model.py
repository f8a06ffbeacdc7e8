"""Encoder: encode, roles, description, and its place in a data-parallel wrapper."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch

import inbatch.encoder.model as model_module
from helpers.st_oracle import TEXTS
from helpers.tiny import save_tiny_bert, tiny_texts
from inbatch.batch.chunks import make_chunks
from inbatch.encoder import Encoder, build_encoder
from inbatch.errors import ConfigError


@pytest.fixture(scope="module")
def encoder(tiny_bert: Path) -> Encoder:
    torch.manual_seed(0)
    prompts = {"query": "red ", "passage": "usb ", "topic": "phone "}
    return build_encoder(
        str(tiny_bert), dense={"out_features": 8}, prompts=prompts, default_prompt_name="topic"
    )


def test_order_and_chunks_do_not_matter(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    want = torch.cat([encoder.encode([text]) for text in TEXTS])
    for chunk_tokens in (1, 40, 8192):
        got = encoder.encode(TEXTS, chunk_tokens=chunk_tokens)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(model_module, "_ENCODE_TEXTS", 5)
    torch.testing.assert_close(encoder.encode(TEXTS), want, rtol=1e-5, atol=1e-6)


def test_forward_follows_the_index(encoder: Encoder) -> None:
    texts = tiny_texts(9, seed=4)
    ids, _ = encoder.tokenizer(texts)
    chunks = make_chunks(ids, [0] * 9, chunk_rows=4, chunk_tokens=None, pad_id=0)
    index = torch.cat([chunk.index for chunk in chunks])
    with torch.no_grad():
        rows = torch.cat([encoder(chunk) for chunk in chunks])
    plain = build_plain(encoder)
    torch.testing.assert_close(rows, plain.encode(texts)[index], rtol=1e-5, atol=1e-6)


def build_plain(encoder: Encoder) -> Encoder:
    plain = copy.copy(encoder)
    plain.default_prompt_name = None
    return plain


def test_roles(encoder: Encoder) -> None:
    names = ["query", "document", "passage", "corpus", "topic", None]
    assert [encoder.prompt_for(name) for name in names] == [
        *("red ", "usb ", "usb ", "usb "),
        *("phone ", "phone "),
    ]
    assert build_plain(encoder).prompt_for(None) == ""
    by_hand = build_plain(encoder).encode(["red case"])
    torch.testing.assert_close(encoder.encode(["case"], role="query"), by_hand)
    with pytest.raises(ConfigError, match="role='answer'"):
        encoder.encode(["case"], role="answer")


def test_encode_has_no_side_effect(tmp_path: Path) -> None:
    noisy = build_encoder(str(save_tiny_bert(tmp_path, dropout=0.5)))
    noisy.train()
    first, second = noisy.encode(["red phone"]), noisy.encode(["red phone"])
    assert torch.equal(first, second), "dropout was on"
    assert noisy.training
    assert noisy.backbone.training
    assert not first.requires_grad
    assert not torch.is_inference(first)


def test_no_texts(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, 8)


def test_describe(encoder: Encoder, tiny_bert: Path) -> None:
    facts = encoder.describe()
    lines = facts.pop("architecture").splitlines()
    assert lines[0] == "SentenceTransformer("
    assert lines[1] == (
        "  (0): Transformer({'max_seq_length': 64, 'do_lower_case': False})"
        " with Transformer model: BertModel"
    )
    assert lines[2].startswith("  (1): Pooling({'word_embedding_dimension': 32, 'pooling_mode_")
    assert lines[3] == (
        "  (2): Dense({'in_features': 32, 'out_features': 8, 'bias': True,"
        " 'activation_function': 'torch.nn.modules.activation.Tanh'})"
    )
    assert lines[-1] == ")"
    num = sum(p.numel() for p in encoder.parameters())
    assert facts == {
        "transformer": "BertModel",
        "base_model": str(tiny_bert),
        "attention": "varlen, without padding, in bf16 or fp16 on a GPU; else sdpa",
        "max_seq_length": 64,
        "output_dimension": 8,
        "similarity": "cosine",
        "pooling": ["mean"],
        "include_prompt": True,
        "adapter": None,
        "prompts": {"query": "red ", "passage": "usb ", "topic": "phone "},
        "default_prompt_name": "topic",
        "num_parameters": num,
        "num_trainable_parameters": num,
    }


def test_normalize_is_printed_as_in_cards(tiny_bert: Path) -> None:
    text = build_encoder(str(tiny_bert), normalize=True).describe()["architecture"]
    assert text.splitlines()[3] == "  (2): Normalize()"


def test_pickles(encoder: Encoder) -> None:
    again = pickle.loads(pickle.dumps(encoder))
    assert torch.equal(again.encode(TEXTS), encoder.encode(TEXTS))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu(tiny_bert: Path) -> None:
    encoder = build_encoder(str(tiny_bert))
    want = encoder.encode(TEXTS)
    got = encoder.encode(TEXTS, device="cuda")
    assert got.device.type == "cpu"
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
