"""Dense and Normalize against sentence-transformers' modules."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.base.modules import Dense as OracleDense
from sentence_transformers.base.modules import Normalize as OracleNormalize
from torch import nn

from inbatch.encoder.head import Dense, Normalize, load_layer, make_activation, make_dense
from inbatch.errors import ConfigError


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "activation", ["Tanh", "torch.nn.modules.activation.GELU", "Identity", None]
)
def test_dense_equals_sentence_transformers(activation: str | None, bias: bool) -> None:
    torch.manual_seed(0)
    dense = Dense(6, 4, activation=activation, bias=bias)
    oracle = OracleDense(6, 4, bias=bias, activation_function=make_activation(activation))
    oracle.load_state_dict(dense.state_dict())
    x = torch.randn(5, 6)
    want = oracle({"sentence_embedding": x})["sentence_embedding"]
    torch.testing.assert_close(dense(x), want, rtol=0, atol=0)
    assert dense.activation == oracle.get_config_dict()["activation_function"]


def test_normalize_equals_sentence_transformers() -> None:
    x = torch.cat([torch.randn(5, 6), torch.zeros(1, 6)])
    want = OracleNormalize()({"sentence_embedding": x})["sentence_embedding"]
    torch.testing.assert_close(Normalize()(x), want, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Tanh", nn.Tanh),
        ("torch.nn.Tanh", nn.Tanh),
        ("torch.nn.modules.activation.SiLU", nn.SiLU),
        ("torch.nn.modules.linear.Identity", nn.Identity),
        (None, nn.Identity),
    ],
)
def test_activation_by_name(name: str | None, kind: type[nn.Module]) -> None:
    assert type(make_activation(name)) is kind


@pytest.mark.parametrize(
    "name",
    ["tanh", "Linear", "os.system", "transformers.activations.Tanh", "Threshold", "", "functional"],
)
def test_refuses_other_names(name: str) -> None:
    with pytest.raises(ConfigError, match=r"dense\.activation="):
        make_activation(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"out_features": 4, "activaton": "Tanh"},
            r"dense\.activaton is not a valid key of dense: did you mean 'activation'",
        ),
        ({}, r"dense\.out_features=null"),
        ({"out_features": 0}, r"dense\.out_features=0"),
        ({"out_features": True}, r"dense\.out_features=true"),
    ],
)
def test_refuses_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_dense(6, options)


def test_defaults_are_those_of_sentence_transformers() -> None:
    dense, oracle = make_dense(6, {"out_features": 4}), OracleDense(6, 4)
    assert dense.activation == oracle.get_config_dict()["activation_function"]
    assert (dense.linear.bias is not None) == oracle.bias


def test_refuses_weights_of_another_shape() -> None:
    with pytest.raises(ConfigError, match=r"weights\.safetensors"):
        load_layer(Dense(6, 4), Dense(6, 5).state_dict(), source="weights.safetensors")
    with pytest.raises(ConfigError, match=r"linear\.bias"):
        load_layer(Dense(6, 4), Dense(6, 4, bias=False).state_dict(), source="x")
