"""Parameter groups: each trainable parameter once, decay as the transformers Trainer decides it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    ModernBertConfig,
    MPNetConfig,
    NomicBertConfig,
    Qwen3Config,
    Trainer,
    XLMRobertaConfig,
)

from inbatch.errors import ConfigError
from inbatch.optim import parameter_groups

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "vocab_size": 64,
}
CONFIGS = [
    BertConfig(**SIZES),
    XLMRobertaConfig(**SIZES),
    MPNetConfig(**SIZES),
    NomicBertConfig(**SIZES),
    ModernBertConfig(
        **SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
    Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8),
    DistilBertConfig(dim=32, hidden_dim=32, n_layers=1, n_heads=4, vocab_size=64),
    GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=64),
]


@pytest.fixture
def model(tiny_bert: Any) -> nn.Module:
    return AutoModel.from_pretrained(tiny_bert)


def names_of(model: nn.Module, group: dict[str, Any]) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_decay_as_the_trainer(config: Any) -> None:
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    decays, rest = parameter_groups(model.named_parameters())
    assert names_of(model, decays) == set(Trainer.get_decay_parameter_names(None, model))
    assert names_of(model, rest) == set(dict(model.named_parameters())) - names_of(model, decays)
    assert (decays.get("weight_decay"), rest["weight_decay"]) == (None, 0.0)


def test_norms_by_their_usual_names() -> None:
    names = [
        "layer.LayerNorm.weight",
        "norm.weight",
        "norm1.weight",
        "h.0.ln_1.weight",
        "ln_f.weight",
    ]
    names += ["emb_ln.weight", "q_norm.weight", "dense.bias"]
    kept = ["dense.weight", "embeddings.weight", "vulnerable.weight", "lnear.weight"]
    parameters = {name: nn.Parameter(torch.ones(1)) for name in [*names, *kept]}
    decays, rest = parameter_groups(parameters.items())
    assert [id(p) for p in decays["params"]] == [id(parameters[name]) for name in kept]
    assert [id(p) for p in rest["params"]] == [id(parameters[name]) for name in names]


def test_every_trainable_parameter_once(model: nn.Module) -> None:
    frozen = [p for name, p in model.named_parameters() if "embeddings" in name]
    for parameter in frozen:
        parameter.requires_grad_(False)
    mapping = {r"layer\.1": 1e-3, "pooler": 1e-2}
    groups = parameter_groups(
        [*model.named_parameters(), ("alias", model.pooler.dense.weight)],
        learning_rate_mapping=mapping,
    )
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters()} - {id(p) for p in frozen}
    assert [(group.get("lr"), group.get("weight_decay")) for group in groups] == [
        *((None, None), (None, 0.0)),
        *((1e-3, None), (1e-3, 0.0)),
        *((1e-2, None), (1e-2, 0.0)),
    ]
    assert all("layer.1" in name for group in groups[2:4] for name in names_of(model, group))


def test_weight_decay_of_the_optimizer(model: nn.Module) -> None:
    groups = parameter_groups(model.named_parameters())
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


def test_last_pattern_wins(model: nn.Module) -> None:
    mapping = {"encoder": 1e-3, r"layer\.1": 1e-2}
    groups = parameter_groups(model.named_parameters(), learning_rate_mapping=mapping)
    rates = {name: group.get("lr") for group in groups for name in names_of(model, group)}
    assert rates["encoder.layer.0.output.dense.weight"] == 1e-3
    assert rates["encoder.layer.1.output.dense.weight"] == 1e-2
    assert rates["pooler.dense.weight"] is None


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        ({"decoder": 1e-3}, r"'decoder'\] sets no trainable parameter's learning rate"),
        ({r"layer\.1": 1e-3, "encoder": 1e-2}, r"'layer\\\\.1'\] sets no"),
        ({"pooler": -1.0}, r"\['pooler'\]=-1.0 is negative"),
        ({"(": 1.0}, "not a regular expression"),
    ],
)
def test_mistakes_in_the_mapping(model: nn.Module, mapping: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parameter_groups(model.named_parameters(), learning_rate_mapping=mapping)


def test_pattern_over_frozen_parameters_only(model: nn.Module) -> None:
    model.pooler.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"'pooler'\] sets no trainable"):
        parameter_groups(model.named_parameters(), learning_rate_mapping={"pooler": 1e-3})


def test_nothing_to_train(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="unfreeze"):
        parameter_groups(model.requires_grad_(False).named_parameters())
