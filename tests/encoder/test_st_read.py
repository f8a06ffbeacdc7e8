"""Directories that sentence-transformers 6.2 or an older release wrote, read by inbatch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LSTM, Pooling

from helpers.st_oracle import TEXTS, assert_same
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError

PROMPTS = {"query": "red phone ", "passage": "small "}


@pytest.fixture(scope="module")
def saved(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Transformer, Pooling, Dense, Normalize, as release 6.2 saves them."""
    torch.manual_seed(1)
    model = SentenceTransformer(
        modules=[
            Transformer(str(tiny_bert), max_seq_length=16),
            Pooling(32, ("mean", "cls"), include_prompt=False),
            Dense(64, 8, activation_function=torch.nn.GELU()),
            Normalize(),
        ],
        prompts=PROMPTS,
        default_prompt_name="passage",
        similarity_fn_name="euclidean",
        truncate_dim=7,
        device="cpu",
    )
    path = tmp_path_factory.mktemp("st62")
    model.save(str(path))
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content) or content))


def test_release_6(saved: Path) -> None:
    encoder = build_encoder(str(saved))
    st = SentenceTransformer(str(saved), device="cpu")
    assert_same(encoder.encode(TEXTS), st.encode(TEXTS))
    assert_same(encoder.encode(TEXTS, role="query"), st.encode_query(TEXTS))
    assert_same(encoder.encode(TEXTS, role="passage"), st.encode(TEXTS, prompt_name="passage"))
    assert encoder.similarity == "euclidean"
    assert encoder.truncate_dim == 7
    assert encoder.default_prompt_name == "passage"
    assert encoder.pooling.modes == ("mean", "cls")
    assert encoder.tokenizer.max_length == 16


def test_saved_by_training_library_with_own_settings(saved: Path) -> None:
    encoder = build_encoder(
        str(saved), pooling="max", dense=False, normalize=False, max_length=9, truncate_dim=3
    )
    assert len(encoder.head) == 0
    assert encoder.encode(TEXTS).shape == (len(TEXTS), 3)
    assert encoder.tokenizer.max_length == 9
    assert encoder.pooling.include_prompt is False
    replaced = build_encoder(str(saved), dense={"out_features": 9})
    assert [type(layer).__name__ for layer in replaced.head] == ["Dense", "Normalize"]
    assert replaced.dimension == 9


def make_older(path: Path) -> None:
    """Rewrite a directory of release 6 into the layout of release 2."""
    kinds = ["Transformer", "Pooling", "Dense", "Normalize"]
    edit(
        path / "modules.json",
        lambda modules: [
            {**m, "type": f"sentence_transformers.models.{kind}"}
            for m, kind in zip(modules, kinds, strict=True)
        ],
    )
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 16, "do_lower_case": true}')
    edit(path / "tokenizer_config.json", lambda config: {**config, "model_max_length": 64})
    flags = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"]
    pooling: dict[str, Any] = {f"pooling_mode_{flag}": flag in flags[:2] for flag in flags}
    pooling["word_embedding_dimension"] = 32
    (path / "1_Pooling/config.json").write_text(json.dumps(pooling))
    keep = ("in_features", "out_features", "bias", "activation_function")
    edit(path / "2_Dense/config.json", lambda config: {k: config[k] for k in keep})
    shutil.rmtree(path / "3_Normalize")
    (path / "config_sentence_transformers.json").unlink()


def test_older_layout(copy: Path) -> None:
    make_older(copy)
    encoder = build_encoder(str(copy))
    st = SentenceTransformer(str(copy), device="cpu")
    assert_same(encoder.encode(TEXTS), st.encode(TEXTS))
    assert encoder.tokenizer.max_length == st.max_seq_length == 16
    assert encoder.pooling.modes == ("cls", "mean")
    assert encoder.similarity == "cosine"
    assert encoder.tokenizer.do_lower_case


def test_oldest_layout_has_the_transformer_in_a_folder(copy: Path) -> None:
    make_older(copy)
    folder = copy / "0_Transformer"
    folder.mkdir()
    for file in [p for p in copy.iterdir() if p.is_file() and p.name != "modules.json"]:
        file.rename(folder / file.name)
    (folder / "sentence_bert_config.json").rename(folder / "sentence_distilbert_config.json")
    edit(copy / "modules.json", lambda modules: modules[0].update(path="0_Transformer"))
    encoder = build_encoder(str(copy))
    st = SentenceTransformer(str(copy), device="cpu")
    assert_same(encoder.encode(TEXTS), st.encode(TEXTS))
    assert encoder.tokenizer.max_length == 16


def test_minilm(minilm: Path, tmp_path: Path) -> None:
    encoder = build_encoder(str(minilm))
    texts = ["A product to clean glass.", "삼성 갤럭시 64GB", "word " * 400, "zapato de niño"]
    st = SentenceTransformer(str(minilm), device="cpu")
    assert_same(encoder.encode(texts), st.encode(texts))
    encoder.save(tmp_path / "model")
    before, after = (load_file(d / "model.safetensors") for d in (minilm, tmp_path / "model"))
    before.pop("embeddings.position_ids", None)  # a constant that older transformers saved
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert_same(
        encoder.encode(texts),
        SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(texts),
    )


def test_random_weights_on_request(saved: Path) -> None:
    torch.manual_seed(5)
    encoder = build_encoder(str(saved), pretrained=False)
    known = build_encoder(str(saved)).state_dict()
    for name in ("head.0.linear.weight", "backbone.embeddings.word_embeddings.weight"):
        assert not torch.equal(encoder.state_dict()[name], known[name])
    assert encoder.dimension == 8


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("modules.json", lambda m: m[1].update(type="my_module.Pooling"), "my_module.Pooling"),
        (
            "modules.json",
            lambda m: m[2].update(type="sentence_transformers.models.Router"),
            r"\['Transformer', 'Pooling', 'Router', 'Normalize'\]",
        ),
        ("modules.json", lambda m: m[1].update(path="../1_Pooling"), "outside the directory"),
        ("modules.json", lambda m: m[:1], r"\['Transformer'\]"),
        (
            "sentence_bert_config.json",
            lambda c: c.update(transformer_task="fill-mask"),
            "transformer_task='fill-mask'",
        ),
        ("sentence_bert_config.json", lambda c: c.update(query_length=8), "query_length=8"),
        (
            "sentence_bert_config.json",
            lambda c: c.update(modality_config={"image": {}}),
            "modality_config=",
        ),
        (
            "sentence_bert_config.json",
            lambda c: c.update(tokenizer_args={"padding_side": "left"}),
            "tokenizer_args=",
        ),
        ("1_Pooling/config.json", lambda c: c.update(pooling_mode="mode"), "pooling='mode'"),
        ("1_Pooling/config.json", lambda c: c.update(temperature=2), "temperature=2"),
        ("2_Dense/config.json", lambda c: c.update(scale=2), "scale=2"),
        (
            "2_Dense/config.json",
            lambda c: c.update(module_input_name="token_embeddings"),
            "module_input_name='token_embeddings'",
        ),
        ("2_Dense/config.json", lambda c: c.update(activation_function="my.Tanh"), "my.Tanh"),
        ("2_Dense/config.json", lambda c: c.update(out_features=9), "2_Dense.*weights"),
        (
            "config_sentence_transformers.json",
            lambda c: c.update(model_type="CrossEncoder"),
            "describes a CrossEncoder",
        ),
        (
            "config_sentence_transformers.json",
            lambda c: c.update(similarity_fn_name="maxsim"),
            "similarity='maxsim'",
        ),
        (
            "config_sentence_transformers.json",
            lambda c: c.update(default_prompt_name="none"),
            "default_prompt_name='none'",
        ),
    ],
)
def test_refuses(copy: Path, file: str, change: Callable[[Any], Any], message: str) -> None:
    edit(copy / file, change)
    with pytest.raises(ConfigError, match=message):
        build_encoder(str(copy))


def test_trust_is_no_setting_of_a_file(copy: Path) -> None:
    edit(
        copy / "sentence_bert_config.json",
        lambda c: c.update(model_args={"trust_remote_code": True}),
    )
    build_encoder(str(copy))


def test_refuses_a_module_that_it_lacks(tiny_bert: Path, tmp_path: Path) -> None:
    modules = [Transformer(str(tiny_bert)), LSTM(32, 8), Pooling(16)]
    st = SentenceTransformer(modules=modules, device="cpu")
    with pytest.raises(KeyError, match="sentence_lengths"):  # it cannot run there either
        st.encode(TEXTS)
    st.save(str(tmp_path / "model"))
    with pytest.raises(ConfigError, match=r"\['Transformer', 'LSTM', 'Pooling'\]"):
        build_encoder(str(tmp_path / "model"))


def test_refuses_pickled_weights(copy: Path) -> None:
    dense = copy / "2_Dense"
    torch.save(load_file(dense / "model.safetensors"), dense / "pytorch_model.bin")
    (dense / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"2_Dense holds no model\.safetensors"):
        build_encoder(str(copy))


def test_refuses_broken_json(copy: Path) -> None:
    (copy / "1_Pooling/config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        build_encoder(str(copy))
