"""Layers after pooling. Shape letters: n texts, D dimensions in, E dimensions out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from inbatch.errors import ConfigError, did_you_mean

_DENSE_KEYS = ("out_features", "activation", "bias", "residual")


class Dense(nn.Module):
    """``activation(x W^T + b)``, plus x; equals sentence-transformers' `Dense`, parameter names included.

    Args:
        in_features: D.
        out_features: E.
        activation: name of a class in torch.nn, plain or dotted, or None for none.
        bias: learn b.
        residual: add x, through a matrix of its own where E is not D.

    Raises:
        ConfigError: torch.nn has no such activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str | None = "Tanh",
        bias: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation_function = make_activation(activation)
        self.adds_input = residual
        if residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def forward(self, x_nD: Tensor) -> Tensor:
        """[..., D] -> [..., E]."""
        output: Tensor = self.activation_function(self.linear(x_nD))
        if not self.adds_input:
            return output
        return output + (self.residual(x_nD) if hasattr(self, "residual") else x_nD)

    @property
    def activation(self) -> str:
        """Dotted name of the activation's class, as sentence-transformers writes it."""
        kind = type(self.activation_function)
        return f"{kind.__module__}.{kind.__qualname__}"


class Normalize(nn.Module):
    """``x / max(||x||, 1e-12)``, without parameters."""

    def forward(self, x_nD: Tensor) -> Tensor:
        """[n, D] -> [n, D] of length one."""
        return nn.functional.normalize(x_nD, dim=-1)


class LayerNorm(nn.Module):
    """Layer normalization with weights, as sentence-transformers' `LayerNorm`.

    Args:
        dimension: D.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, x_nD: Tensor) -> Tensor:
        """[n, D] -> [n, D]."""
        output: Tensor = self.norm(x_nD)
        return output


class Dropout(nn.Module):
    """Dropout of an embedding's values in training, as sentence-transformers' `Dropout`.

    Args:
        dropout: share that is set to zero.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout_layer = nn.Dropout(dropout)

    def forward(self, x_nD: Tensor) -> Tensor:
        """[n, D] -> [n, D]."""
        output: Tensor = self.dropout_layer(x_nD)
        return output


def layer_text(layer: nn.Module) -> str:
    """What tells a layer from another with the same weights."""
    if not isinstance(layer, Dense):
        return type(layer).__name__
    return f"Dense {layer.activation}" + (" beside its input" if layer.adds_input else "")


def make_activation(name: str | None) -> nn.Module:
    """Make an activation of torch.nn from its plain ("Tanh") or dotted name; nothing else is imported.

    Raises:
        ConfigError: torch.nn has no such activation, or it needs arguments.
    """
    if name is None:
        return nn.Identity()
    prefix, _, plain = name.rpartition(".")
    kind = getattr(nn, plain, None) if prefix == "" or prefix.startswith("torch.nn") else None
    if kind is nn.Identity or getattr(kind, "__module__", "") == "torch.nn.modules.activation":
        with suppress(TypeError):  # Threshold and MultiheadAttention need arguments
            module: nn.Module = kind()  # type: ignore[misc]
            return module
    raise ConfigError(
        "dense.activation",
        "is not an activation of torch.nn",
        "give a name such as Tanh, GELU or Identity",
        value=name,
    )


def make_dense(in_features: int, options: Mapping[str, Any]) -> Dense:
    """Make a `Dense` from ``{out_features: 512, activation: Tanh, bias: true, residual: false}``.

    Raises:
        ConfigError: `out_features` is missing or below one, or a key is unknown.
    """
    unknown = sorted(set(options) - set(_DENSE_KEYS))
    if unknown:
        raise ConfigError(
            f"dense.{unknown[0]}",
            "is not a valid key of dense",
            did_you_mean(unknown[0], _DENSE_KEYS) or f"use one of {', '.join(_DENSE_KEYS)}",
        )
    size = options.get("out_features")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(
            "dense.out_features", "is not a whole number of at least 1", "set one", value=size
        )
    return Dense(in_features, **options)


def load_layer(layer: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy saved weights into a layer.

    Raises:
        ConfigError: `state` has a parameter too few or too many, or one of another shape.
    """
    wanted = {key: tuple(value.shape) for key, value in layer.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if wanted != found:
        raise ConfigError(
            source,
            f"holds weights {found} where its config.json asks for {wanted}",
            "give a complete model",
        )
    with torch.no_grad():
        layer.load_state_dict(dict(state))
