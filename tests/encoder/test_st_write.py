"""Directories that inbatch writes, loaded by sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.st_oracle import TEXTS, assert_same_model
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError

PROMPTS = {"query": "red phone ", "document": "small "}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dense", [None, {"out_features": 8}], ids=["plain", "dense"])
@pytest.mark.parametrize(
    "pooling", ["mean", "cls", "max", "mean_sqrt_len", "weighted_mean", "last_token"]
)
def test_every_pooling_and_head(
    tiny_bert: Path, tmp_path: Path, pooling: str, dense: dict[str, Any] | None, normalize: bool
) -> None:
    encoder = build_encoder(
        str(tiny_bert),
        pooling=pooling,
        dense=dense,
        normalize=normalize,
        prompts=PROMPTS,
        include_prompt=False,
        max_length=16,
        similarity="dot",
    )
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")


@pytest.mark.parametrize(
    "pooling", [["cls", "mean"], ["mean", "cls"], ["last_token", "max", "weighted_mean"]]
)
def test_several_poolings_keep_their_order(
    tiny_bert: Path, tmp_path: Path, pooling: list[str]
) -> None:
    encoder = build_encoder(str(tiny_bert), pooling=pooling, dense={"out_features": 8})
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")
    again = build_encoder(str(tmp_path / "model"))
    assert list(again.pooling.modes) == pooling


def test_default_prompt_and_truncation(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = build_encoder(
        str(tiny_bert), prompts={"topic": "usb "}, default_prompt_name="topic", truncate_dim=5
    )
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")
    assert encoder.output_dimension == 5
    assert not torch.allclose(encoder.encode(TEXTS), encoder.encode(TEXTS, role="query"))


def test_passage_prompt_reaches_sentence_transformers(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = build_encoder(str(tiny_bert), prompts={"passage": "usb "})
    encoder.save(tmp_path / "model")
    assert_same_model(encoder, tmp_path / "model")
    assert not torch.allclose(encoder.encode(TEXTS), encoder.encode(TEXTS, role="document"))


def test_layout_is_the_older_one(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = build_encoder(
        str(tiny_bert), dense={"out_features": 8}, normalize=True, max_length=16
    )
    encoder.save(tmp_path / "model")
    files = {str(p.relative_to(tmp_path / "model")) for p in (tmp_path / "model").rglob("*.*")}
    assert files == {
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
    }
    modules = json.loads((tmp_path / "model/modules.json").read_text())
    assert [m["type"].removeprefix("sentence_transformers.models.") for m in modules] == [
        "Transformer",
        "Pooling",
        "Dense",
        "Normalize",
    ]
    pooling = json.loads((tmp_path / "model/1_Pooling/config.json").read_text())
    assert pooling == {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    tokenizer = json.loads((tmp_path / "model/tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == 16
    assert oct((tmp_path / "model").stat().st_mode & 0o755) == "0o755"


def test_round_trip_is_bit_identical(tiny_bert: Path, tmp_path: Path) -> None:
    first = build_encoder(str(tiny_bert), dense={"out_features": 8}, prompts=PROMPTS)
    first.save(tmp_path / "a")
    second = build_encoder(str(tmp_path / "a"))
    second.save(tmp_path / "b")
    assert second.state_dict().keys() == first.state_dict().keys()
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert {k: v.tolist() for k, v in second.pooler.items()} == {
        k: v.tolist() for k, v in first.pooler.items()
    }
    for file in (p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        other = tmp_path / "b" / file.relative_to(tmp_path / "a")
        assert other.read_bytes() == file.read_bytes(), file.name


def test_pooler_of_the_checkpoint_is_kept(tiny_bert: Path, tmp_path: Path) -> None:
    build_encoder(str(tiny_bert)).save(tmp_path / "model")
    before, after = (load_file(d / "model.safetensors") for d in (tiny_bert, tmp_path / "model"))
    assert "pooler.dense.weight" in before
    assert {k: v.tolist() for k, v in before.items()} == {k: v.tolist() for k, v in after.items()}


def test_given_weights_are_written(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = build_encoder(str(tiny_bert), dense={"out_features": 8})
    other = {name: value + 1 for name, value in encoder.state_dict().items()}
    encoder.save(tmp_path / "model", state_dict=other)
    read = build_encoder(str(tmp_path / "model")).state_dict()
    assert all(torch.equal(read[name], value) for name, value in other.items())


def test_replaces_an_older_model_and_nothing_else(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = build_encoder(str(tiny_bert), dense={"out_features": 8})
    encoder.save(tmp_path / "model")
    build_encoder(str(tiny_bert)).save(tmp_path / "model")
    assert not (tmp_path / "model/2_Dense").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    (tmp_path / "run").mkdir()
    encoder.save(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    for target in ("other", "other/notes.txt"):
        with pytest.raises(ConfigError, match="something other than a model"):
            encoder.save(tmp_path / target)
    assert (tmp_path / "other/notes.txt").read_text() == "mine"


def test_failed_save_leaves_the_older_model(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = build_encoder(str(tiny_bert), dense={"out_features": 8})
    encoder.save(tmp_path / "model")
    before = {p: p.read_bytes() for p in (tmp_path / "model").rglob("*") if p.is_file()}
    broken = dict(encoder.state_dict())
    broken["head.0.linear.weight"] = "no tensor"  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        encoder.save(tmp_path / "model", state_dict=broken)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def first_token(tokens: torch.Tensor, mask: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    """A pooling of a user's own."""
    return tokens[:, 0]


def test_a_pooling_of_another_package_comes_back_where_it_is_trusted(
    tiny_bert: Path, tmp_path: Path
) -> None:
    mode = f"{__name__}.first_token"
    encoder = build_encoder(str(tiny_bert), pooling=mode)
    encoder.save(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"set encoder\.trust_remote_code=true"):
        build_encoder(str(tmp_path / "model"))
    again = build_encoder(str(tmp_path / "model"), trust_remote_code=True)
    assert again.pooling.modes == (mode,)
    torch.testing.assert_close(again.encode(["red phone"]), encoder.encode(["red phone"]))
