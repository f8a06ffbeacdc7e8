"""Sums over anchors of what their distances to all texts of a batch make of them.

Some anchors at a time, so that no matrix of the size batch x batch is ever held; gradients, of the size of
the embeddings, are computed in forward and wait. Shape letters: G texts, R anchors of a panel, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from inbatch.losses.pairs import full_precision
from inbatch.losses.softmax.walk import panel_rows

AnchorDistance = Literal["euclidean", "cosine"]
ANCHOR_DISTANCES = ("euclidean", "cosine")

# Distances of anchors to all texts [R, G], and which these are -> what is summed up, and numbers [k] to add.
OfPanel = Callable[[Tensor, slice], tuple[Tensor, Tensor]]

_TILES = 8  # of the size of a panel that exist at a time
_ZERO_ULPS = 16  # a squared distance below so many units of rounding of its terms is 0


def sum_over_anchors(
    of_panel: OfPanel,
    texts_GD: Tensor,
    anchors: Sequence[slice],
    *,
    distance: AnchorDistance,
    panel_halvings: int = 0,
) -> tuple[Tensor, Tensor]:
    """Sums of both results of `of_panel` over all panels; the first can be differentiated once.

    Args:
        of_panel: see above.
        texts_GD: embeddings of any length.
        anchors: which of them are anchors.
        distance: "euclidean", or "cosine": 1 - cosine.
        panel_halvings: how often the rows of a panel are halved.
    """
    with torch.autocast(texts_GD.device.type, enabled=False):
        texts_GD = full_precision(texts_GD)
        if distance == "cosine":
            texts_GD = normalize(texts_GD, dim=1)
        grad = torch.is_grad_enabled()
        value, numbers = _Sum.apply(of_panel, anchors, distance, panel_halvings, grad, texts_GD)
    return value, numbers


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        of_panel: OfPanel,
        anchors: Sequence[slice],
        distance: AnchorDistance,
        panel_halvings: int,
        grad: bool,
        texts_GD: Tensor,
    ) -> tuple[Tensor, Tensor]:
        wanted = grad and ctx.needs_input_grad[5]
        gradient_GD = torch.zeros_like(texts_GD) if wanted else None
        values, numbers = [], []
        for part in _panels(anchors, texts_GD, panel_halvings):
            tile_RG = _distances(texts_GD, part, distance)
            with torch.set_grad_enabled(wanted):
                leaf_RG = tile_RG.detach().requires_grad_(wanted)
                value, of_part = of_panel(leaf_RG, part)
                if gradient_GD is not None:
                    (weights_RG,) = torch.autograd.grad(value, leaf_RG)
                    _add_gradient(gradient_GD, weights_RG, tile_RG, texts_GD, part, distance)
            values.append(value.detach())
            numbers.append(of_part.detach())
        ctx.save_for_backward(gradient_GD)
        total, total_numbers = torch.stack(values).sum(), torch.stack(numbers).sum(0)
        ctx.mark_non_differentiable(total_numbers)
        return total, total_numbers

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_value: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_GD,) = ctx.saved_tensors
        return None, None, None, None, None, gradient_GD * grad_value


def _panels(anchors: Sequence[slice], texts_GD: Tensor, halvings: int) -> list[slice]:
    row_bytes = _TILES * len(texts_GD) * texts_GD.element_size()
    step = max(panel_rows(texts_GD.device, row_bytes, panel_bytes=None) >> halvings, 1)
    return [
        slice(begin, min(begin + step, rows.stop))
        for rows in anchors
        for begin in range(rows.start, rows.stop, step)
    ]


def _distances(texts_GD: Tensor, part: slice, distance: AnchorDistance) -> Tensor:
    """Distances of some texts to all, [R, G]; 0 where rounding leaves no more."""
    products_RG = texts_GD[part] @ texts_GD.T
    if distance == "cosine":
        return 1 - products_RG
    square_G = texts_GD.square().sum(1)
    terms_RG = square_G[part, None] + square_G
    squared_RG = terms_RG - 2 * products_RG
    least_RG = terms_RG * (_ZERO_ULPS * torch.finfo(terms_RG.dtype).eps)
    return torch.where(squared_RG > least_RG, squared_RG, 0).sqrt()


def _add_gradient(
    gradient_GD: Tensor,
    weights_RG: Tensor,
    tile_RG: Tensor,
    texts_GD: Tensor,
    part: slice,
    distance: AnchorDistance,
) -> None:
    """Carry the gradient of distances on to the texts; one of 0 has none."""
    anchors_RD = texts_GD[part]
    if distance == "cosine":
        gradient_GD[part] -= weights_RG @ texts_GD
        gradient_GD -= weights_RG.T @ anchors_RD
        return
    slopes_RG = torch.where(tile_RG > 0, weights_RG / tile_RG, 0)
    gradient_GD[part] += slopes_RG.sum(1)[:, None] * anchors_RD - slopes_RG @ texts_GD
    gradient_GD += slopes_RG.sum(0)[:, None] * texts_GD - slopes_RG.T @ anchors_RD
