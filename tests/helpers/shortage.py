"""Memory that runs out at chosen calls, in the words of torch's allocator or of cuBLAS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Fails = Callable[[int], bool]  # of the number of the call, from 1 on

ERRORS: dict[str, RuntimeError] = {
    "allocator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cublas": RuntimeError(
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    ),
}


def never(number: int) -> bool:
    """Nothing fails."""
    return False


class Shortage:
    """Runs out of memory in forwards, with gradient or without, and in backwards, through a layer of a model.

    What a backward has reached by then are the layers behind it. A chunk of a single token always fits.

    Args:
        layer: gives one tensor, [n, T, D] or [n, D].
        forward, backward: which calls fail.
        embed: which forwards without gradient fail.
        error: which of `ERRORS`.
    """

    def __init__(
        self,
        layer: nn.Module,
        *,
        forward: Fails = never,
        backward: Fails = never,
        embed: Fails = never,
        error: str = "allocator",
    ) -> None:
        self.num_forwards = self.num_backwards = self._num_embeds = 0
        self._forward, self._backward, self._error = forward, backward, ERRORS[error]
        self._embed = embed
        layer.register_forward_hook(self._after)

    def _after(self, layer: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
        if output.ndim == 3 and output.shape[:-1].numel() == 1:
            return None
        if not torch.is_grad_enabled():
            self._num_embeds += 1
            if self._embed(self._num_embeds):
                raise self._error
            return None
        self.num_forwards += 1
        if self._forward(self.num_forwards):
            raise self._error
        return _Watched.apply(output, self)  # type: ignore[no-any-return]

    def count_backward(self) -> None:
        """Called by each backward."""
        self.num_backwards += 1
        if self._backward(self.num_backwards):
            raise self._error


class _Watched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, shortage: Shortage) -> Tensor:
        ctx.shortage = shortage
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.shortage.count_backward()
        return gradient, None
