"""`streamed_cross_entropy` where no rank holds the global batch: candidates travel from rank to rank.

Each rank keeps its own rows and receives the rows of every other rank in turn, hop by hop. A softmax then
grows with each hop (Milakov and Gimelshein 2018, arXiv:1805.02867): forward keeps each row's largest logit
and the sum of its exponentials. Backward goes round once more: it computes the logits again, adds to the
gradients of the own rows, and to those of the received rows, which travel along and come home complete
(as in ring attention, Liu et al. 2023, arXiv:2310.01889, and Inf-CL, Cheng et al. 2024, arXiv:2410.17243).

Beside the gathered form: memory for own and visiting rows instead of all rows; 4 D + 2 E products an
entry for 3 D + E; embeddings (and the guide's) travel twice and gradients once, for once each. The next
rows are on their way while these are scored.

Shape letters: Q own rows, G rows of a hop, R rows of a panel, C columns, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from inbatch.losses.base import InFlight, Ring
from inbatch.losses.softmax.panels import (
    GuideScratch,
    Pairing,
    ScoredTexts,
    add_gradients,
    exponentiate,
)
from inbatch.losses.softmax.walk import (
    Filled,
    SoftmaxSpec,
    StreamStats,
    fill_panel,
    guide_scratch,
    panel_rows,
    texts_of,
    through_length,
    unit_columns,
)


def ring_cross_entropy(
    spec: SoftmaxSpec, columns: Sequence[Tensor], ring: Ring
) -> tuple[Tensor, StreamStats]:
    """Mean over the own rows, whose candidates are the rows of all ranks.

    Its backward gives each own row the sum of all ranks' gradients, as that of `GlobalGather` does. All
    ranks must call it, and its backward, together.

    Args:
        spec: the arguments without gradient, of the own rows.
        columns: each [Q, D], Q >= 1.
        ring: the way to the others.

    Returns:
        The loss, a scalar that can be differentiated once, and detached statistics.
    """
    loss, *stats = _RingCrossEntropy.apply(spec, ring, *columns)
    return loss, StreamStats(*stats)


class _Sums(NamedTuple):
    """A softmax under way, each [Q]."""

    positive: Tensor  # logit of the positive
    hardest: Tensor  # largest logit of the query's kept negatives, not hardened
    peak: Tensor  # largest logit
    negatives: Tensor  # sum of exp(logit - peak) over the negatives


class _RingCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spec: SoftmaxSpec, ring: Ring, *columns: Tensor) -> tuple[Tensor, ...]:
        dtype = torch.promote_types(columns[0].dtype, torch.float32)
        units, norms = zip(*(unit_columns(column, dtype, spec.normalize) for column in columns))
        with torch.autocast(columns[0].device.type, enabled=False):
            sums, filtered = _reduce(spec, ring, units)
        ctx.spec, ctx.ring = spec, ring
        ctx.dtypes = tuple(column.dtype for column in columns)
        ctx.save_for_backward(*sums, *units, *norms)
        stats = (sums.positive * spec.temperature, sums.hardest * spec.temperature, filtered)
        ctx.mark_non_differentiable(*stats)
        margin_Q = sums.positive - sums.peak
        # log(1 + negatives / positive): exact where the positive is nearly everything.
        losses_Q = torch.logaddexp(sums.negatives.log() - margin_Q, torch.zeros_like(margin_Q))
        return losses_Q.mean(), *stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        sums = _Sums(*ctx.saved_tensors[:4])
        saved, num_columns = ctx.saved_tensors[4:], len(ctx.dtypes)
        units, norms = saved[:num_columns], saved[num_columns:]
        with torch.autocast(units[0].device.type, enabled=False):
            gradients = _gradients(ctx.spec, ctx.ring, units, sums, grad_loss.to(units[0].dtype))
        for gradient_QD, unit_QD, norm_Q in zip(gradients, units, norms):
            through_length(gradient_QD, unit_QD, norm_Q)
        return None, None, *(g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes))


def _reduce(spec: SoftmaxSpec, ring: Ring, units: Sequence[Tensor]) -> tuple[_Sums, Tensor]:
    """Once round the ring: the softmax of each own row, and how many entries the guide removed."""
    lowest_Q = units[0].new_full((len(units[0]),), -torch.inf)
    positive_Q, hardest_Q, peak_Q = lowest_Q.clone(), lowest_Q.clone(), lowest_Q
    negatives_Q = torch.zeros_like(peak_Q)
    filtered = torch.zeros((), dtype=torch.int64, device=peak_Q.device)
    # The own rows come first, so that every row has its positive's logit, a finite peak, from then on.
    for _, pairing in _hops(spec, ring, units):
        for part, tiles, filled in _panels(spec, pairing):
            if pairing.own:
                positive_Q[part] = filled.positive
            filtered += filled.removed
            hardest_Q[part] = torch.maximum(hardest_Q[part], filled.hardest)
            before_R = torch.maximum(peak_Q[part], positive_Q[part])
            peak_R = torch.maximum(before_R, filled.peak)
            negatives_Q[part] *= (peak_Q[part] - peak_R).exp()
            negatives_Q[part] += exponentiate(tiles, peak_R)
            peak_Q[part] = peak_R
    return _Sums(positive_Q, hardest_Q, peak_Q, negatives_Q), filtered


def _gradients(
    spec: SoftmaxSpec, ring: Ring, units: Sequence[Tensor], sums: _Sums, grad_loss: Tensor
) -> list[Tensor]:
    """Once more round: the gradient of all ranks' losses for each own unit column, [Q, D]."""
    num_rows = len(units[0])
    total_Q = sums.negatives + (sums.positive - sums.peak).exp()
    weight_Q = grad_loss / (total_Q * (num_rows * spec.temperature))
    own_CQD = torch.zeros_like(torch.stack(list(units)))
    under_way: InFlight | None = None
    for owner, pairing in _hops(spec, ring, units):
        received = pairing.candidates.columns
        theirs_CGD = received[0].new_zeros(len(received), *received[0].shape)
        both = (own_CQD.unbind(0), theirs_CGD.unbind(0))
        for part, tiles, _ in _panels(spec, pairing):
            exponentiate(tiles, sums.peak[part])
            for block, tile_RG in zip(spec.blocks, tiles):
                if block.own == "positive":  # probability - 1 = -(sum of the negatives')
                    own_R = pairing.diagonal(tile_RG, part)
                    own_R.copy_(-sums.negatives[part][: len(own_R)])
                tile_RG.mul_(weight_Q[part, None])
                add_gradients(tile_RG, block, pairing, both, part)
        if under_way is not None:
            theirs_CGD += under_way.wait()[0]
        under_way = ring.pass_on(theirs_CGD, owner)
    assert under_way is not None
    return list((own_CQD + under_way.wait()[0]).unbind(0))


def _hops(spec: SoftmaxSpec, ring: Ring, units: Sequence[Tensor]) -> Iterator[tuple[int, Pairing]]:
    """Owner of the rows that are here, and the own rows beside them."""
    own = texts_of(spec, units)
    parts = [part for part in (own.columns, own.guide, own.ids) if part is not None]
    for owner, tensors in ring.hops([torch.stack(list(part)) for part in parts]):
        here = [tensor.unbind(0) for tensor in tensors]
        received = ScoredTexts(
            here.pop(0),
            None if own.guide is None else here.pop(0),
            None if own.ids is None else here.pop(0),
        )
        yield owner, Pairing(own, received, own=owner == ring.rank)


def _panels(spec: SoftmaxSpec, pairing: Pairing) -> Iterator[tuple[slice, list[Tensor], Filled]]:
    """Own rows of a panel, its tiles full of logits, and what was seen while filling them."""
    own_QD, num_candidates = pairing.rows.columns[0], len(pairing.candidates.columns[0])
    step = panel_rows(spec, own_QD, num_tiles=len(spec.blocks))
    panel = own_QD.new_empty(len(spec.blocks), step, num_candidates)
    scratch: GuideScratch | None = guide_scratch(spec.guide, step, num_candidates)
    for begin in range(0, len(own_QD), step):
        part = slice(begin, min(begin + step, len(own_QD)))
        tiles = list(panel[:, : part.stop - part.start])
        yield part, tiles, fill_panel(spec, pairing, tiles, part, scratch)
