"""Softmaxes with soft targets: a teacher's distribution over the candidates, alone or beside the positive.

A row has candidates c with logits z_c and, of a teacher, g_c. With q = softmax(z) and p = softmax(g)::

    loss     = (1 - a) * -log q_own  +  a * sum_c p_c (log p_c - log q_c)
    gradient = q_c - (1 - a) [c is the own one] - a p_c        with respect to z_c

Hinton, Vinyals and Dean 2015, arXiv:1503.02531. One candidate of each row, its positive, is called its own.
It is kept apart from the others, since it may have nearly all of both distributions.

Shape letters: R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from inbatch.losses.softmax.panels import LOWEST, Softmax


@final
@dataclass(frozen=True, slots=True)
class SoftSpec(Softmax):
    """The arguments of `soft_cross_entropy` that have no gradient; `temperature` is the student's."""

    teacher_temperature: float
    share: float  # a, above 0 and at most 1


class SoftSums(NamedTuple):
    """Candidates of rows but for their own ones, each [R]; logits are less the peak where they are summed."""

    peak: Tensor  # largest logit, LOWEST at least
    total: Tensor  # sum of exp(z)
    teacher_peak: Tensor
    teacher_total: Tensor
    cross: Tensor  # sum of exp(g) (g - z)


class SolvedSoft(NamedTuple):
    """The softmaxes of rows, each [R]."""

    contrastive: Tensor  # -log q_own
    divergence: Tensor  # of the teacher's distribution from the student's
    own: Tensor  # gradient with respect to the own logit
    student: Tensor  # factor of exp(z - peak) in the gradient with respect to z
    teacher: Tensor  # factor of exp(g - teacher_peak) in it, which is subtracted
    own_share: Tensor  # q_own
    teacher_own_share: Tensor  # p_own


def no_sums(like_R: Tensor) -> SoftSums:
    """Sums over no candidates."""
    lowest, zero = torch.full_like(like_R, LOWEST), torch.zeros_like(like_R)
    return SoftSums(lowest, zero, lowest, zero, zero)


def merge_sums(parts: Sequence[SoftSums]) -> SoftSums:
    """Sums over the candidates of all parts."""
    peak = torch.stack([part.peak for part in parts]).amax(0)
    teacher_peak = torch.stack([part.teacher_peak for part in parts]).amax(0)
    total, teacher_total, cross = (torch.zeros_like(peak) for _ in range(3))
    for part in parts:
        lower, teacher_lower = part.peak - peak, part.teacher_peak - teacher_peak
        shrink = teacher_lower.exp()
        total += part.total * lower.exp()
        teacher_total += part.teacher_total * shrink
        cross += shrink * (part.cross + part.teacher_total * (teacher_lower - lower))
    return SoftSums(peak, total, teacher_peak, teacher_total, cross)


def solve_soft(own: Tensor, teacher_own: Tensor, sums: SoftSums, *, share: float) -> SolvedSoft:
    """The softmaxes of rows.

    Args:
        own, teacher_own: logits of the own candidates, [R].
        sums: of the others.
        share: a.
    """
    above, teacher_above = own - sums.peak, teacher_own - sums.teacher_peak
    gap, teacher_gap = sums.total.log() - above, sums.teacher_total.log() - teacher_above
    # log(1 + others / own): exact where the own one is nearly everything.
    contrastive, teacher_loss = (
        torch.logaddexp(g, torch.zeros_like(g)) for g in (gap, teacher_gap)
    )
    # Of all candidates, less the peak.
    log_sum = torch.logaddexp(sums.total.log(), above)
    teacher_log_sum = torch.logaddexp(sums.teacher_total.log(), teacher_above)
    per_teacher = (-teacher_log_sum).exp()
    others = per_teacher * (sums.cross + sums.teacher_total * (log_sum - teacher_log_sum))
    teacher_own_share = (-teacher_gap).sigmoid()
    return SolvedSoft(
        contrastive,
        teacher_own_share * (contrastive - teacher_loss) + others,
        share * teacher_gap.sigmoid() - gap.sigmoid(),
        (-log_sum).exp(),
        share * per_teacher,
        (-gap).sigmoid(),
        teacher_own_share,
    )
