"""Layers between a transformer and its pooling.

Shape letters: n texts, T tokens of a padded row, D dimensions in, E dimensions out, L hidden states.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from inbatch.encoder.head import Dense
from inbatch.errors import ConfigError


@final
class CNN(nn.Module):
    """Convolutions over the tokens of a text, beside each other.

    It equals sentence-transformers' `CNN` of a text alone. That one reads padded positions, so that beside a
    longer text a text has other embeddings; here they are zero, as what lies beyond the ends of a text alone.

    Args:
        in_features: D.
        channels: E, a kernel's outputs.
        kernel_sizes: tokens that each kernel sees; odd, so that every token has an output.
    """

    def __init__(self, in_features: int, channels: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        self.kernel_sizes = list(kernel_sizes)
        self.convs = nn.ModuleList(
            nn.Conv1d(in_features, channels, size, padding=size // 2) for size in kernel_sizes
        )
        self.in_features = in_features
        self.channels = channels

    @property
    def out_features(self) -> int:
        """E of all kernels together."""
        return self.channels * len(self.kernel_sizes)

    def forward(self, tokens_nTD: Tensor, mask_nT: Tensor) -> Tensor:
        """[n, T, D] -> [n, T, E], the kernels' outputs in order; `mask_nT` is 0 where there is padding."""
        inputs_nDT = tokens_nTD.masked_fill(mask_nT[..., None] == 0, 0.0).transpose(1, 2)
        return torch.cat([conv(inputs_nDT) for conv in self.convs], dim=1).transpose(1, 2)


@final
class WeightedLayerPooling(nn.Module):
    """Mean of a transformer's hidden states with learned weights; equals sentence-transformers' module.

    Args:
        dimension: D.
        num_layers: of the transformer, whose states are one more: the first is that of its token embeddings.
        first: the first state that is taken, counted from 0.
    """

    def __init__(self, dimension: int, num_layers: int, first: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.num_layers = num_layers
        self.first = first
        self.layer_weights = nn.Parameter(torch.ones(num_layers + 1 - first))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """L tensors [n, T, D] -> [n, T, D]."""
        taken_LnTD = torch.stack(tuple(states[self.first :]))
        weights_L = self.layer_weights
        return (weights_L[:, None, None, None] * taken_LnTD).sum(dim=0) / weights_L.sum()


@final
class TokenHead(nn.Sequential):
    """The layers in order; a `WeightedLayerPooling` is the first if there is one."""

    def states(self, output: Any) -> Tensor:
        """The tokens [n, T, D] of a transformer's output: its last hidden state, or a mean of several."""
        first = next(iter(self), None)
        tokens_nTD: Tensor = (
            first(output.hidden_states) if isinstance(first, WeightedLayerPooling) else output[0]
        )
        return tokens_nTD

    def forward(  # type: ignore[override]
        self, tokens_nTD: Tensor, mask_nT: Tensor
    ) -> Tensor:
        """What `states` gave, [n, T, D] -> [n, T, E]; `mask_nT` is 0 where there is padding."""
        for layer in self:
            if isinstance(layer, CNN):
                tokens_nTD = layer(tokens_nTD, mask_nT)
            elif not isinstance(layer, WeightedLayerPooling):
                tokens_nTD = layer(tokens_nTD)
        return tokens_nTD


def token_width(config: PretrainedConfig, layers: Iterable[nn.Module]) -> int:
    """Dimensions E behind the layers of a transformer with this configuration.

    Raises:
        ConfigError: a `WeightedLayerPooling` that is made for another transformer, or that
            sentence-transformers would pass over.
    """
    width: int = config.hidden_size
    for layer in layers:
        if isinstance(layer, WeightedLayerPooling):
            _check_states(layer, config)
        elif isinstance(layer, CNN):
            width = layer.out_features
        elif isinstance(layer, Dense):
            width = layer.linear.out_features
    return width


def _check_states(layer: WeightedLayerPooling, config: PretrainedConfig) -> None:
    if layer.num_layers != config.num_hidden_layers:
        raise ConfigError(
            "model",
            f"has a WeightedLayerPooling of {layer.num_layers} layers and a transformer of "
            f"{config.num_hidden_layers}",
            "give a complete model",
        )
    # Without the states sentence-transformers' module gives back the last one, in silence.
    if not config.output_hidden_states:
        raise ConfigError(
            "model",
            "has a WeightedLayerPooling that takes no part, since its config.json does not set "
            "output_hidden_states",
            "set it to true there, or take the module out of modules.json",
        )
