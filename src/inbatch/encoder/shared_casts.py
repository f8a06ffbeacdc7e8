"""Weights in 16 bits, cast once for all forwards of a batch.

Autocast casts the float32 weights of each linear layer in each forward anew, and each graph holds a copy of
its own: 150 kernels and 170 MB a chunk for BERT-base. Its cache does not serve here: what it keeps from a
forward without gradient has no way back to the weights. These casts have one, which any number of backwards
can take, each with the gradient that a cast of its own would pass on: nothing changes but time and memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inbatch.encoder.linear import is_linear


def shared_casts(module: nn.Module, device: torch.device) -> dict[str, Tensor]:
    """The float32 weights and biases of linear layers in autocast's dtype, by name; none outside of autocast.

    For `torch.func.functional_call`. They hold while the weights do: up to the next optimizer step.

    Args:
        module: whose parameters are whole.
        device: where it computes.
    """
    if not torch.is_autocast_enabled(device.type):
        return {}
    dtype = torch.get_autocast_dtype(device.type)
    with torch.enable_grad():
        return {
            f"{path}.{name}": parameter.to(dtype)
            for path, layer in module.named_modules()
            if is_linear(layer)
            for name, parameter in layer.named_parameters(recurse=False)
            if parameter.dtype == torch.float32
        }
