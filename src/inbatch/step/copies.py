"""Texts embedded once that occur several times. Shape letters: N embedded texts, T texts, D dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from inbatch.device.copies import to_device


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values_ND: Tensor, place_T: Tensor, order_T: Tensor, starts_N: Tensor
    ) -> Tensor:
        ctx.save_for_backward(order_T, starts_N)
        return values_ND[place_T]

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        order_T, starts_N = ctx.saved_tensors
        if not len(starts_N):
            return grad_TD, None, None, None
        # Adds up in a fixed order on any device, unlike the backward of indexing.
        return embedding_bag(order_T, grad_TD, starts_N, mode="sum"), None, None, None


def spread(values_ND: Tensor, copies: np.ndarray | None) -> Tensor:
    """The embedding of each text, [T, D], whose gradients add up over the copies of a text.

    Args:
        values_ND: embeddings of different texts, each of which occurs.
        copies: int64 [T], place of each text among them; None for one text each, in their order.
    """
    if copies is None:
        return values_ND
    order_T = np.argsort(copies, kind="stable")
    starts_N = np.searchsorted(copies[order_T], np.arange(len(values_ND)))
    lists = (torch.from_numpy(of) for of in (copies, order_T, starts_N))
    spread_TD: Tensor = _Spread.apply(values_ND, *(to_device(of, values_ND.device) for of in lists))
    return spread_TD
