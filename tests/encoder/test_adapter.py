"""Adapters beside frozen layers: what they compute, how they are saved, and what is read of others' files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from test_packing import embed, make_chunk
from transformers import AutoModel

from helpers.tiny import tiny_texts
from inbatch.encoder import Encoder, build_encoder
from inbatch.encoder.adapter import LoRA, choose_adapter
from inbatch.encoder.hashes import hash_weights
from inbatch.errors import ConfigError

peft = pytest.importorskip("peft")
TEXTS = tiny_texts(12, max_words=20)
SMALL = {"rank": 4, "targets": ["query", "value", "dense"]}


@pytest.fixture
def base(tiny_bert: Path, tmp_path: Path) -> Path:
    """A sentence-transformers directory with a Dense layer."""
    torch.manual_seed(0)
    path = tmp_path / "base"
    build_encoder(str(tiny_bert), dense={"out_features": 16}).save(path)
    return path


def adapted(base: Path, **options: Any) -> Encoder:
    """With adapters as after some training."""
    torch.manual_seed(1)
    encoder = build_encoder(str(base), adapter=SMALL, **options)
    for name, parameter in encoder.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    return encoder


def test_a_new_adapter_changes_nothing_and_alone_trains(base: Path) -> None:
    plain, encoder = build_encoder(str(base)), build_encoder(str(base), adapter="lora")
    assert torch.equal(plain.encode(TEXTS), encoder.encode(TEXTS))
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert [name for name in trained if "lora_" not in name] == [
        "head.0.linear.weight",
        "head.0.linear.bias",
    ]
    layers = len([m for m in plain.backbone.modules() if isinstance(m, torch.nn.Linear)])
    assert len(trained) == 2 * layers + 2
    assert type(encoder.backbone) is type(plain.backbone)
    assert encoder.identity() != plain.identity()


def test_texts_without_padding_give_the_same_updates(base: Path) -> None:
    encoder = adapted(base, attention="varlen").double()
    chunk = make_chunk(encoder, texts=TEXTS)
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert all("lora_" in name or "head." in name for name in trained)
    (_, padded), (_, packed) = (embed(encoder, chunk, packing) for packing in ("never", "always"))
    for name, one, other in zip(trained, packed, padded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12, msg=name)


def test_the_saved_model_is_merged_and_the_adapter_beside_it(base: Path, tmp_path: Path) -> None:
    encoder, path = adapted(base), tmp_path / "model"
    wanted = encoder.encode(TEXTS)
    assert (wanted - build_encoder(str(base)).encode(TEXTS)).abs().max() > 0.01
    encoder.save(path)
    theirs = SentenceTransformer(str(path), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(theirs, wanted, rtol=0, atol=2e-6)
    torch.testing.assert_close(build_encoder(str(path)).encode(TEXTS), wanted, rtol=0, atol=2e-6)
    names = load_file(path / "model.safetensors").keys()
    assert names == load_file(base / "model.safetensors").keys()
    on_base = build_encoder(str(base), dense=False, adapter=str(path / "adapter"))
    whole = build_encoder(str(path), dense=False).encode(TEXTS)
    torch.testing.assert_close(on_base.encode(TEXTS), whole, rtol=0, atol=2e-6)


def test_peft_loads_the_adapter(base: Path, tmp_path: Path) -> None:
    encoder, path = adapted(base), tmp_path / "model"
    encoder.save(path)
    saved = json.loads((path / "adapter" / "adapter_config.json").read_text())
    assert (saved["base_model_name_or_path"], saved["r"]) == (str(base), 4)
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(base), path / "adapter").eval()
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=mask)[0]
        ours = encoder.eval().backbone(input_ids=ids, attention_mask=mask)[0]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-6)


def test_16_bit_weights_stay_and_are_merged_in_float32(base: Path, tmp_path: Path) -> None:
    encoder = adapted(base, dtype="bfloat16", dense=False)
    types = {p.requires_grad: p.dtype for _, p in encoder.named_parameters()}
    assert types == {False: torch.bfloat16, True: torch.float32}
    encoder.save(tmp_path / "model")
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    exact = adapted(base, dense=False)
    exact.load_state_dict({name: p.float() for name, p in encoder.state_dict().items()})
    reloaded = build_encoder(str(tmp_path / "model"), dtype="auto")
    torch.testing.assert_close(reloaded.encode(TEXTS), exact.encode(TEXTS), rtol=0, atol=2e-6)


def others(base: Path, path: Path, **changes: Any) -> Encoder:
    """A directory of an adapter as other tools leave it, and the encoder that it is of."""
    encoder = adapted(base)
    encoder.save(path / "model")
    shutil.move(path / "model" / "adapter", path / "adapter")
    shutil.rmtree(path / "model")
    config = path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    return encoder


def test_a_directory_of_an_adapter_is_its_base_with_it(base: Path, tmp_path: Path) -> None:
    encoder = others(base, tmp_path)
    found = build_encoder(str(tmp_path / "adapter"))
    wanted = encoder.encode(TEXTS)
    torch.testing.assert_close(found.encode(TEXTS), wanted, rtol=0, atol=2e-6)
    assert {n for n, p in found.named_parameters() if p.requires_grad and "lora_" not in n} == {
        *("head.0.linear.weight", "head.0.linear.bias")
    }
    assert found.adapter is not None
    assert found.adapter.base == str(base)
    assert found.adapter.base_digest == hash_weights(
        build_encoder(str(base)).backbone.state_dict().items()
    )
    with pytest.raises(ConfigError, match="has an adapter already"):
        build_encoder(str(tmp_path / "adapter"), adapter="lora")


def test_an_adapter_beside_whole_weights_belongs_to_them(base: Path, tmp_path: Path) -> None:
    encoder = others(base, tmp_path, base_model_name_or_path="nowhere/at-all")
    for file in (tmp_path / "adapter").iterdir():
        shutil.copy(file, base)
    torch.testing.assert_close(
        build_encoder(str(base)).encode(TEXTS), encoder.encode(TEXTS), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "sets peft_type='IA3', which is not supported: merge it into"),
        ({"init_lora_weights": "pissa"}, "sets init_lora_weights='pissa', which is not supported"),
        ({"use_dora": True}, "sets use_dora=True, which is not supported"),
        ({"modules_to_save": ["pooler"]}, "sets modules_to_save="),
        ({"base_model_name_or_path": None}, "names no base model: give the base model as"),
        ({"base_model_name_or_path": "/nowhere"}, r"base_model_name_or_path in .*is not a dir"),
        ({"r": 3}, "does not fit BertModel"),
        ({"target_modules": ["query"]}, "does not fit BertModel"),
        ({"target_modules": ["nothing"]}, "fits no layer of BertModel"),
    ],
)
def test_what_is_refused_of_a_directory(
    base: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    others(base, tmp_path, **changes)
    with pytest.raises(ConfigError, match=message):
        build_encoder(str(tmp_path / "adapter"))


def test_half_of_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    others(base, tmp_path)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    saved = load_file(file)
    save_file(dict([*saved.items()][::2]), file)
    with pytest.raises(ConfigError, match="does not fit BertModel"):
        build_encoder(str(tmp_path / "adapter"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors cannot be read"):
        build_encoder(str(tmp_path / "adapter"))
    file.unlink()
    with pytest.raises(ConfigError, match=r"holds no adapter_model\.safetensors"):
        build_encoder(str(tmp_path / "adapter"))


def test_a_broken_configuration_is_named(base: Path, tmp_path: Path) -> None:
    others(base, tmp_path)
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"r": ')
    with pytest.raises(ConfigError, match=r"adapter_config\.json cannot be read as JSON"):
        build_encoder(str(tmp_path / "adapter"))


def stacked(base: Path, path: Path, **options: Any) -> tuple[Encoder, Encoder]:
    """An encoder with one adapter, which is saved in a directory; one with a trained second on top of it."""
    first = others(base, path)
    second = {
        "rank": 2,
        "alpha": 3,
        "targets": ["query", "key"],
    }  # layers of both, of one, and of the other
    torch.manual_seed(2)
    encoder = build_encoder(str(base), adapter=[str(path / "adapter"), second], **options)
    for name, parameter in encoder.named_parameters():
        if ".default." in name:
            parameter.data.normal_(std=0.3)
    return first, encoder


def test_an_adapter_on_top_of_another_trains_alone(base: Path, tmp_path: Path) -> None:
    first = others(base, tmp_path).encode(TEXTS)
    encoder = build_encoder(str(base), adapter=[str(tmp_path / "adapter"), "lora"])
    torch.testing.assert_close(encoder.encode(TEXTS), first, rtol=0, atol=2e-6)
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
    layers = len([n for n in trained if ".lora_A.default." in n])
    plain = build_encoder(str(base)).backbone.modules()
    assert layers == len([m for m in plain if isinstance(m, torch.nn.Linear)])
    assert not [name for name in trained if "beneath" in name]
    assert encoder.adapter is not None
    assert encoder.adapter.describe().endswith(", beside 1 frozen")
    on_base = build_encoder(str(base), adapter="lora").adapter
    assert on_base is not None
    assert encoder.adapter.base_digest != on_base.base_digest


def test_several_adapters_are_saved_merged_and_as_one(base: Path, tmp_path: Path) -> None:
    _, encoder = stacked(base, tmp_path)
    wanted, path = encoder.encode(TEXTS), tmp_path / "both"
    encoder.save(path)
    theirs = SentenceTransformer(str(path), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(theirs, wanted, rtol=0, atol=3e-6)
    again = build_encoder(str(path / "adapter"))
    assert again.adapter is not None
    assert again.adapter.settings["r"] == 4 + 2
    torch.testing.assert_close(again.encode(TEXTS), wanted, rtol=0, atol=3e-6)
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(base), path / "adapter").eval()
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    with torch.no_grad():
        theirs = model(input_ids=ids)[0]
        ours = encoder.eval().backbone(input_ids=ids)[0]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=3e-6)


def test_several_adapters_without_padding(base: Path, tmp_path: Path) -> None:
    _, encoder = stacked(base, tmp_path, attention="varlen")
    chunk = make_chunk(encoder.double(), texts=TEXTS)
    (_, padded), (_, packed) = (embed(encoder, chunk, packing) for packing in ("never", "always"))
    assert len(padded) == 2 * 2 * 2 + 2  # two layers, query and key, A and B; the Dense layer
    for one, other in zip(packed, padded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["lora", "lora"], r"adapter='lora' is no directory with adapter_config\.json"),
        ([{"rank": 2}, "lora"], r"adapter=\{rank: 2\} is no directory"),
        ([], "adapter=\\[\\] names no adapter: set lora"),
        ("lore", r"adapter='lore' is neither lora nor a directory"),
        ({"rank": 0}, "adapter.rank=0 is too small"),
        ({"alpha": 0}, "adapter.alpha=0 is not above 0"),
        ({"dropout": 1}, "adapter.dropout=1 is not from 0 to below 1"),
        ({"rang": 8}, r"adapter.rang is not a key of a LoRA adapter: did you mean 'rank'\?"),
        ({"rank": "x"}, "adapter.rank='x' is not a number"),
    ],
)
def test_mistakes(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_adapter(value, None)


def test_targets_that_fit_no_layer(base: Path) -> None:
    message = r"adapter\.targets=\['q_proj'\] fits no layer of BertModel .*name some of query, key"
    with pytest.raises(ConfigError, match=message):
        build_encoder(str(base), adapter={"targets": ["q_proj"]})


def test_defaults() -> None:
    assert LoRA(rank=8).peft_config() == {
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
    }
