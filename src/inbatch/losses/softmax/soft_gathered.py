"""`soft_cross_entropy` where a rank holds all candidates: both softmaxes are complete within a panel.

A panel holds the student's logits and the teacher's of its rows, so that there is one pass and no second
look: 3 D + E products an entry, as with a guide, in panels of half the rows. Shape letters: Q rows this rank
owns, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from inbatch.losses.softmax.pairing import ScoredTexts, pair
from inbatch.losses.softmax.products import add_product, weight_unit
from inbatch.losses.softmax.soft_panels import (
    reduce_soft,
    soft_panels,
    teacher_factors,
    weigh_soft,
)
from inbatch.losses.softmax.soft_targets import SoftSpec, solve_soft
from inbatch.losses.softmax.walk import (
    Columns,
    drop_radial_parts,
    gradient_buffers,
    gradient_products,
    prepare,
    scaled_gradients,
)


class SoftStats(NamedTuple):
    """Detached by-products of the loss, each [Q]; logits are natural."""

    contrastive: Tensor  # -log of the own candidate's share
    divergence: Tensor  # of the teacher's distribution from the student's
    own: Tensor  # the own candidate's logit
    teacher_own: Tensor
    hardest: Tensor  # the query's largest other logit, -inf where there is none
    own_share: Tensor  # of the student's distribution
    teacher_own_share: Tensor  # of the teacher's


def gathered_soft_cross_entropy(
    spec: SoftSpec, columns: Sequence[Tensor], teacher: Sequence[Tensor], own_Q: Tensor
) -> tuple[Tensor, SoftStats]:
    """The loss of the owned rows, a scalar that can be differentiated once, and detached statistics.

    Args:
        spec: the arguments without gradient.
        columns: each [G, D]; they may differ in their rows.
        teacher: each [G, E].
        own_Q: number of each owned row's own candidate in the target's block, int64.
    """
    loss, *stats = _SoftCrossEntropy.apply(spec, teacher, own_Q, torch.is_grad_enabled(), *columns)
    return loss, SoftStats(*stats)


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        spec: SoftSpec,
        teacher: Sequence[Tensor],
        own_Q: Tensor,
        grad: bool,
        *columns: Tensor,
    ) -> tuple[Tensor, ...]:
        wanted = [grad and need for need in ctx.needs_input_grad[4:]]
        with torch.autocast(columns[0].device.type, enabled=False):
            stats, gradients, factors = _run(spec, columns, teacher, own_Q, wanted)
        ctx.save_for_backward(*gradients)
        ctx.factors = factors
        ctx.dtypes = tuple(column.dtype for column in columns)
        ctx.mark_non_differentiable(*stats)
        return soft_loss(spec, stats.contrastive, stats.divergence), *stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, None, *scaled_gradients(ctx, grad_loss)


def soft_loss(spec: SoftSpec, contrastive_Q: Tensor, divergence_Q: Tensor) -> Tensor:
    """Mean of the weighted sum of both terms; without the first one where its weight is 0."""
    loss = spec.share * divergence_Q.mean()
    return loss if spec.share == 1 else loss + (1 - spec.share) * contrastive_Q.mean()


def _run(
    spec: SoftSpec,
    columns: Sequence[Tensor],
    teacher: Sequence[Tensor],
    own_Q: Tensor,
    wanted: Sequence[bool],
) -> tuple[SoftStats, list[Tensor | None], list[Tensor | float]]:
    """Walk over the panels: statistics, and each wanted column's gradient with what it lacks."""
    prepared = prepare(spec, columns)
    texts = ScoredTexts(prepared.factors, teacher_factors(teacher, prepared.dtype), None)
    pairing = pair(texts, texts, own=True)
    gradients = gradient_buffers(columns, wanted, prepared.dtype)
    first, num_rows = spec.rows.start, spec.rows.stop - spec.rows.start
    stats = SoftStats(*columns[0].new_empty(7, num_rows, dtype=prepared.dtype).unbind(0))
    own_gradient_Q = torch.empty_like(stats.own)
    for own, buffers in soft_panels(spec, pairing, slice(0, num_rows)):
        part = slice(first + own.start, first + own.stop)
        reduced = reduce_soft(spec, pairing, buffers, part, own_Q[own])
        solved = solve_soft(reduced.own, reduced.teacher_own, reduced.sums, share=spec.share)
        own_gradient_Q[own] = solved.own
        found = SoftStats(
            solved.contrastive,
            solved.divergence,
            reduced.own,
            reduced.teacher_own,
            reduced.hardest,
            solved.own_share,
            solved.teacher_own_share,
        )
        for kept_Q, values_R in zip(stats, found):
            kept_Q[own] = values_R
        if not any(wanted):
            continue
        for k, block in enumerate(spec.blocks):
            rows, candidates = texts.columns[block.rows], texts.columns[block.candidates]
            weights = weigh_soft(buffers, k, rows[part], candidates, solved)
            sides = (texts.columns, texts.columns, (gradients, gradients))
            for product in gradient_products(weights, block, *sides, part):
                add_product(*product)
    if any(wanted):
        _add_own(spec, prepared, own_Q, own_gradient_Q, gradients)
        drop_radial_parts(spec, prepared, gradients)
    return stats, gradients, prepared.backward_factors(spec, num_rows)


def _add_own(
    spec: SoftSpec,
    prepared: Columns,
    own_Q: Tensor,
    gradient_Q: Tensor,
    gradients: Sequence[Tensor | None],
) -> None:
    """Add what the own candidates give; tiles leave it out, see `walk.add_own_pairs`."""
    rows = prepared.factors[spec.target.rows][spec.rows]
    candidates = prepared.factors[spec.target.candidates].take(own_Q)
    weight_Q = gradient_Q * weight_unit(rows)
    for factor in (rows, candidates):
        weight_Q = weight_Q if factor.scale is None else weight_Q * factor.scale
    of_rows, of_candidates = gradients[spec.target.rows], gradients[spec.target.candidates]
    if of_rows is not None:
        of_rows[spec.rows].addcmul_(candidates.exact_values(), weight_Q[:, None])
    if of_candidates is not None:  # no candidate is two rows' own
        of_candidates.index_add_(0, own_Q, rows.exact_values() * weight_Q[:, None])
