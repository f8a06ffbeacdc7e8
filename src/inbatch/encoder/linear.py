"""Linear layers whose float32 products are oneDNN's on a CPU where these are faster.

See device/cpu_products.py.

Shape letters: T tokens, I features in, O features out.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from inbatch.compat import onednn_product
from inbatch.device.cpu_products import onednn_is_faster, onednn_takes


def use_fast_products(model: nn.Module) -> None:
    """Let the linear layers of a model choose how they multiply; nothing else about them changes."""
    if onednn_is_faster():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear


def is_linear(module: nn.Module) -> bool:
    """True for layers that use weight and bias as `nn.Linear` does; a subclass may not."""
    return type(module) in (nn.Linear, Linear)


@final
class Linear(nn.Linear):
    """``nn.Linear``; outside of autocast and torch.compile, with oneDNN's products where these are faster."""

    def forward(self, input: Tensor) -> Tensor:
        """See the base class."""
        rows_TI = input.reshape(-1, input.shape[-1])
        if (
            torch.compiler.is_compiling()
            or torch.is_autocast_enabled("cpu")
            or not onednn_takes(rows_TI, self.weight.T)
        ):
            return super().forward(input)
        output: Tensor = _Products.apply(rows_TI, self.weight, self.bias)
        return output.view(*input.shape[:-1], -1)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(input_TI, weight_OI)
        return onednn_product(input_TI, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TO: Tensor) -> tuple[Tensor | None, ...]:
        input_TI, weight_OI = ctx.saved_tensors
        for_input, for_weight, for_bias = ctx.needs_input_grad
        return (
            onednn_product(grad_TO, weight_OI.T) if for_input else None,
            onednn_product(grad_TO.T, input_TI.T) if for_weight else None,
            grad_TO.sum(0) if for_bias else None,
        )
