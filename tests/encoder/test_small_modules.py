"""Small modules of sentence-transformers, encoders of the T5 family, and models whose padding shows."""

# ruff: noqa: E501 - tables of modules

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

from helpers.st_oracle import TEXTS, assert_same, assert_same_model
from helpers.tiny import tiny_texts, tiny_tokenizer
from inbatch.encoder import build_encoder
from inbatch.encoder.padding_check import COMPARED, check_padding
from inbatch.errors import ConfigError
from inbatch.guide.fingerprint import describe_guide

Modules = Callable[[], list[nn.Module]]


def tokens(width: int, **options: Any) -> Dense:
    return Dense(32, width, module_input_name="token_embeddings", **options)


BEHIND: dict[str, Modules] = {
    "layer norm": lambda: [Pooling(32, "mean"), LayerNorm(32), Normalize()],
    "dropout": lambda: [Pooling(32, "mean"), Dropout(0.3), Dense(32, 8)],
    "residual": lambda: [Pooling(32, "mean"), Dense(32, 32, use_residual=True)],
    "residual of another size": lambda: [Pooling(32, "cls"), Dense(32, 8, use_residual=True), Dense(8, 4)],
    "dense tokens": lambda: [tokens(16), Pooling(16, "mean"), Normalize()],
    "dense tokens, twice": lambda: [
        tokens(32, use_residual=True), tokens(8, activation_function=nn.Identity(), bias=False), Pooling(8, ("mean", "max")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", BEHIND)
def test_a_model_is_read_trained_and_written(name: str, tiny_bert: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    modules = [Transformer(str(tiny_bert), max_seq_length=32), *BEHIND[name]()]
    for module in modules[1:]:
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    st = SentenceTransformer(modules=modules, device="cpu")
    st.save(str(tmp_path / "theirs"))
    encoder = build_encoder(str(tmp_path / "theirs"))
    assert_same(encoder.encode(TEXTS), st.encode(TEXTS))
    assert encoder.output_dimension == st.get_embedding_dimension()
    encoder.save(tmp_path / "ours")
    assert_same_model(encoder, tmp_path / "ours")
    assert_same_model(build_encoder(str(tmp_path / "ours")), tmp_path / "ours")
    kinds = [module.__class__.__name__ for module in modules[1:]]
    text = encoder.describe()["architecture"]
    assert all(f": {kind}(" in text for kind in kinds)
    random = build_encoder(str(tmp_path / "theirs"), pretrained=False)
    assert {n: p.shape for n, p in random.named_parameters()} == {n: p.shape for n, p in encoder.named_parameters()}  # fmt: skip


def test_what_a_layer_does_is_known_to_a_guides_store(tiny_bert: Path, tmp_path: Path) -> None:
    """The same weights with and without the input beside them make other embeddings."""
    modules = [Transformer(str(tiny_bert)), Pooling(32, "mean"), Dense(32, 32, use_residual=True)]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path))
    with_input = build_encoder(str(tmp_path))
    file = next(tmp_path.glob("*_Dense")) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_residual": False}))
    without = build_encoder(str(tmp_path))
    described = [describe_guide(each, store_dtype="float16", compute_dtype="fp32") for each in (with_input, without)]  # fmt: skip
    assert described[0]["weights"] == described[1]["weights"]
    assert described[0] != described[1]


def test_a_new_dense_layer_beside_its_input(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = build_encoder(str(tiny_bert), dense={"out_features": 8, "residual": True})
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")


@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5"])
def test_the_encoder_of_t5(kind: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path / "whole")  # with its decoder
    tokenizer.save_pretrained(tmp_path / "whole")
    given = {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings = tmp_path / "whole" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | given))
    encoder = build_encoder(str(tmp_path / "whole"), max_length=32)
    assert not [name for name, _ in encoder.named_parameters() if "decoder" in name]
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")
    st = SentenceTransformer(str(tmp_path / "whole"), device="cpu")
    st.max_seq_length = 32
    assert_same(encoder.encode(TEXTS), st.encode(TEXTS))
    alone = AutoModelForTextEncoding.from_pretrained(tmp_path / "model")
    assert type(alone) is type(encoder.backbone)


def test_arguments_of_loading_that_change_nothing(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = build_encoder(str(tiny_bert))
    encoder.save(tmp_path)
    file = tmp_path / "sentence_bert_config.json"
    harmless = {
        "attn_implementation": "sdpa",
        "torch_dtype": "float32",
        "device_map": None,
        "use_cache": False,
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_args": harmless, "tokenizer_args": {"use_fast": True}}))  # fmt: skip
    assert_same(build_encoder(str(tmp_path)).encode(TEXTS), encoder.encode(TEXTS))
    for wrong in ({"torch_dtype": "bfloat16"}, {"num_hidden_layers": 1}):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_args": harmless | wrong}))
        with pytest.raises(ConfigError, match="model_args="):
            build_encoder(str(tmp_path))


@pytest.mark.parametrize(("side", "refused"), [("left", True), ("right", False)])
def test_an_embedding_that_depends_on_its_neighbours_is_refused(
    tmp_path: Path, side: str, refused: bool
) -> None:
    """Positions of GPT-2 count the padding in front."""
    tokenizer = tiny_tokenizer()
    config = AutoConfig.for_model(
        "gpt2", vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64
    )
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    given = {"padding_side": side, "tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(json.loads(file.read_text()) | given))
    if refused:
        with pytest.raises(ConfigError, match=r"GPT2Model, padded on the left.*padding_side=right"):
            build_encoder(str(tmp_path))
    else:
        assert_same_model(build_encoder(str(tmp_path)), tmp_path)


SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["bert", "mpnet", "nomic_bert", "roberta", "xlm-roberta", "modernbert", "electra"]
)
def test_architectures_that_are_not_tried_need_not_be(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inbatch.encoder.padding_check.COMPARED", ())
    torch.manual_seed(0)
    encoder = build_encoder(
        config={"model_type": kind, "max_position_embeddings": 66, **SIZES},
        tokenizer={"train": {"vocab_size": 120}},
        texts=lambda: tiny_texts(100),
    )
    assert kind in COMPARED
    check_padding(encoder.backbone, padding_side="right", pad_id=encoder.tokenizer.pad_id)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "refused"), [("qwen2", True), ("qwen3", False)])
def test_a_tokenizer_that_would_not_come_back_is_refused(kind: str, refused: bool) -> None:
    options: dict[str, Any] = {
        "config": {"model_type": kind, "num_key_value_heads": 2, **SIZES},
        "tokenizer": {"train": {"vocab_size": 120}},
        "texts": lambda: tiny_texts(100),
        "max_length": 32,
    }
    if refused:
        with pytest.raises(ConfigError, match=r"does not go with config\.model_type='qwen2'"):
            build_encoder(**options)
    else:
        build_encoder(**options)
