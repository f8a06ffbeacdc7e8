"""`soft_cross_entropy` where no rank holds the global batch: candidates travel, and the teacher's with them.

As in `ring.py`, in two passes: the first one grows both softmaxes hop by hop, and the sum that their
divergence needs; the second one computes both tiles again. 4 D + 2 E products an entry. Shape letters: Q own
rows, R rows of a panel, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from inbatch.device.memory import retried
from inbatch.losses.base import Ring
from inbatch.losses.softmax.pairing import Pairing, ScoredTexts
from inbatch.losses.softmax.panels import Weights
from inbatch.losses.softmax.products import Factor
from inbatch.losses.softmax.ring import RingWalk, ring_gradients
from inbatch.losses.softmax.soft_gathered import SoftStats, soft_loss
from inbatch.losses.softmax.soft_panels import (
    ReducedSoft,
    SoftBuffers,
    reduce_soft,
    soft_panels,
    teacher_factors,
    weigh_soft,
)
from inbatch.losses.softmax.soft_targets import (
    SoftSpec,
    SoftSums,
    SolvedSoft,
    merge_sums,
    no_sums,
    solve_soft,
)
from inbatch.losses.softmax.walk import prepare


def ring_soft_cross_entropy(
    spec: SoftSpec, columns: Sequence[Tensor], teacher: Sequence[Tensor], ring: Ring
) -> tuple[Tensor, SoftStats]:
    """Mean over the own rows, whose candidates are the rows of all ranks; see `ring_cross_entropy`.

    Args:
        spec: the arguments without gradient, of the own rows.
        columns: each [Q, D], Q >= 1.
        teacher: each [Q, E].
        ring: the way to the others.

    Returns:
        The loss, a scalar that can be differentiated once, and detached statistics.
    """
    loss, *stats = _RingSoftCrossEntropy.apply(spec, teacher, ring, *columns)
    return loss, SoftStats(*stats)


class _Found(NamedTuple):
    """What the hops up to now have found, each [Q]."""

    own: Tensor
    teacher_own: Tensor
    hardest: Tensor
    sums: SoftSums


@dataclass(slots=True)
class _Walk(RingWalk[SoftSpec]):
    own_Q: Tensor  # number of each row's own candidate in the own hop

    def panels(
        self, pairing: Pairing, rows: slice
    ) -> Iterator[tuple[slice, SoftBuffers, ReducedSoft]]:
        """Own rows of a panel, its buffers, and its candidates among the rows that are here."""
        for part, buffers in soft_panels(self.spec, pairing, rows):
            own_R = self.own_Q[part] if pairing.own else None
            yield part, buffers, reduce_soft(self.spec, pairing, buffers, part, own_R)

    def weights(
        self, solved: SolvedSoft, sums: SoftSums, pairing: Pairing, rows: slice
    ) -> Iterator[tuple[slice, Iterator[Weights]]]:
        """The gradient with respect to logits, see `ring.Weights`; `solved` is of all candidates' `sums`."""
        for part, buffers, reduced in self.panels(pairing, rows):
            here, lower = reduced.sums, solved.student[part]
            factors = solved._replace(
                student=lower * (here.peak - sums.peak[part]).exp(),
                teacher=solved.teacher[part] * (here.teacher_peak - sums.teacher_peak[part]).exp(),
            )
            yield part, self._of_blocks(pairing, buffers, part, factors)

    def _of_blocks(
        self, pairing: Pairing, buffers: SoftBuffers, part: slice, factors: SolvedSoft
    ) -> Iterator[Weights]:
        for k, block in enumerate(self.spec.blocks):
            rows: Factor = self.columns.factors[block.rows][part]
            candidates = pairing.candidates.columns[block.candidates]
            yield weigh_soft(buffers, k, rows, candidates, factors)


class _RingSoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, spec: SoftSpec, teacher: Sequence[Tensor], ring: Ring, *columns: Tensor
    ) -> tuple[Tensor, ...]:
        with torch.autocast(columns[0].device.type, enabled=False):
            walk = retried(
                partial(_begin, spec, teacher, ring, columns), lambda: ring.lower() is not None
            )
            found = _reduce(walk)
        solved = solve_soft(found.own, found.teacher_own, found.sums, share=spec.share)
        ctx.walk = walk
        ctx.dtypes = tuple(column.dtype for column in columns)
        ctx.save_for_backward(*solved, *found.sums)
        stats = SoftStats(
            solved.contrastive,
            solved.divergence,
            found.own,
            found.teacher_own,
            found.hardest,
            solved.own_share,
            solved.teacher_own_share,
        )
        ctx.mark_non_differentiable(*stats)
        return soft_loss(spec, stats.contrastive, stats.divergence), *stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        solved = SolvedSoft(*saved[: len(SolvedSoft._fields)])
        sums = SoftSums(*saved[len(solved) :])
        walk: _Walk = ctx.walk
        with torch.autocast(grad_loss.device.type, enabled=False):
            # Ranks may differ in their rows and in the scale of their losses.
            scale = grad_loss.to(solved.own.dtype) / (len(solved.own) * walk.spec.temperature)
            weights = partial(walk.weights, solved, sums)
            gradients = ring_gradients(walk, weights, solved.own, scale)[0]
        return None, None, None, *(g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes))


def _begin(
    spec: SoftSpec, teacher: Sequence[Tensor], ring: Ring, columns: Sequence[Tensor]
) -> _Walk:
    prepared = prepare(spec, columns)
    texts = ScoredTexts(prepared.factors, teacher_factors(teacher, prepared.dtype), None)
    own_Q = torch.arange(len(columns[0]), device=columns[0].device)
    return _Walk(spec, ring, prepared, lambda: texts, own_Q)


def _reduce(walk: _Walk) -> _Found:
    """Once round: the sums of each own row."""
    values = walk.columns.factors[0].values

    def nothing() -> _Found:
        like = values.new_empty(len(values), dtype=walk.columns.dtype)
        lowest = torch.full_like(like, -torch.inf)
        return _Found(like, torch.empty_like(like), lowest, no_sums(like))

    found = walk.again(nothing)
    for _, pairing in walk.hops():
        found = walk.again(partial(_reduce_hop, walk, pairing, found))
    return found


def _reduce_hop(walk: _Walk, pairing: Pairing, before: _Found) -> _Found:
    """Add a hop to what was found before, which stays as it is."""
    own, teacher_own, hardest = (values_Q.clone() for values_Q in before[:3])
    sums = SoftSums(*(values_Q.clone() for values_Q in before.sums))
    for part, _, reduced in walk.panels(pairing, slice(0, len(own))):
        if pairing.own:
            own[part], teacher_own[part] = reduced.own, reduced.teacher_own
        hardest[part] = torch.maximum(hardest[part], reduced.hardest)
        merged = merge_sums([SoftSums(*(values_Q[part] for values_Q in sums)), reduced.sums])
        for values_Q, values_R in zip(sums, merged):
            values_Q[part] = values_R
    return _Found(own, teacher_own, hardest, sums)
