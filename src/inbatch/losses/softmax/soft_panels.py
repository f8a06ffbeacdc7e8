"""Panels with two tiles a block, the student's logits and the teacher's, by torch's operations.

As in `torch_panels` logits are to base 2 in here, and entries are removed by a finite number. Shape letters:
R rows of a panel, W candidates of a block, D dimension, E the teacher's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.device.matmul_precision import exact_products
from inbatch.losses.softmax.pairing import Pairing
from inbatch.losses.softmax.panels import LOWEST, Weights
from inbatch.losses.softmax.products import (
    HALVES,
    Factor,
    Form,
    make_factor,
    multiply,
    product_form,
    row_weight,
)
from inbatch.losses.softmax.soft_targets import SoftSpec, SoftSums, SolvedSoft
from inbatch.losses.softmax.torch_panels import LN_2, REMOVED
from inbatch.losses.softmax.walk import panel_rows


class SoftBuffers(NamedTuple):
    """What each panel overwrites; as many rows as the largest."""

    student: list[Tensor]  # by block, [R, W]
    teacher: list[Tensor]
    between: Tensor  # [R, W] of the widest block
    weights: Tensor | None  # likewise, in 16 bits; None where they take the student's place

    def first(self, num_rows: int) -> SoftBuffers:
        """Those of a panel of so many rows."""
        student, teacher = ([t[:num_rows] for t in tiles] for tiles in (self.student, self.teacher))
        weights = None if self.weights is None else self.weights[:num_rows]
        return SoftBuffers(student, teacher, self.between[:num_rows], weights)


class ReducedSoft(NamedTuple):
    """A panel whose tiles hold ``exp(logit - peak)``, each [R]."""

    own: Tensor  # logits of the own candidates; [0] where these are not in the panel
    teacher_own: Tensor
    hardest: Tensor  # the query's largest logit of another candidate, -inf where there is none
    sums: SoftSums


def teacher_factors(columns: Sequence[Tensor], dtype: torch.dtype) -> list[Factor]:
    """A teacher's columns as they are multiplied, in the precision of a student's: unit rows, [G, E]."""
    if dtype == torch.float64 or any(column.dtype == torch.float64 for column in columns):
        columns = [column.to(dtype) for column in columns]
    form = Form(dtype) if dtype == torch.float64 else product_form(columns, mixed=True)
    return [make_factor(column, form, normalize=True)[0] for column in columns]


def soft_panels(
    spec: SoftSpec, pairing: Pairing, rows: slice
) -> Iterator[tuple[slice, SoftBuffers]]:
    """Panels of some of the owned rows: the rows among the owned, and their buffers."""
    like = pairing.rows.columns[0].values
    dtype = torch.promote_types(like.dtype, torch.float32)
    widths = [len(pairing.candidates.columns[block.candidates].values) for block in spec.blocks]
    widest = max(widths)
    row_bytes = (2 * sum(widths) + widest) * dtype.itemsize
    most = panel_rows(like.device, row_bytes, panel_bytes=spec.panel_bytes)
    step = max(min(rows.stop - rows.start, most) >> spec.panel_halvings, 1)

    def tiles() -> list[Tensor]:
        return [like.new_empty(step, width, dtype=dtype) for width in widths]

    weights = like.new_empty(step, widest) if like.dtype in HALVES else None
    buffers = SoftBuffers(tiles(), tiles(), like.new_empty(step, widest, dtype=dtype), weights)
    for begin in range(rows.start, rows.stop, step):
        own = slice(begin, min(begin + step, rows.stop))
        yield own, buffers.first(own.stop - own.start)


def reduce_soft(
    spec: SoftSpec, pairing: Pairing, buffers: SoftBuffers, part: slice, own_R: Tensor | None
) -> ReducedSoft:
    """Fill a panel and leave ``exp(logit - peak)`` in it, 0 for the own candidates.

    Args:
        spec: of the softmax.
        pairing: student's columns, and as guide the teacher's.
        buffers: of the panel.
        part: its rows among those of the pairing.
        own_R: number of each row's own candidate in the target's block; None where it is not there.
    """
    own = teacher_own = buffers.between.new_empty(0)
    for number, block in enumerate(spec.blocks):
        both = _fill(spec, pairing, buffers, part, number)
        if block.own == "masked":
            for tile in both:
                pairing.diagonal(tile, part).fill_(REMOVED)
        elif block.own == "positive" and own_R is not None:
            own, teacher_own = (tile.gather(1, own_R[:, None])[:, 0] * LN_2 for tile in both)
            for tile in both:
                tile.scatter_(1, own_R[:, None], REMOVED)
    peaks = [tile.amax(1) for tile in buffers.student]
    of_query = [p for block, p in zip(spec.blocks, peaks) if block.rows == spec.target.rows]
    hardest = torch.stack(of_query).amax(0)
    hardest = hardest.masked_fill_(hardest < LOWEST, -torch.inf).mul_(LN_2)
    return ReducedSoft(own, teacher_own, hardest, _add_up(buffers, torch.stack(peaks).amax(0)))


def _fill(
    spec: SoftSpec, pairing: Pairing, buffers: SoftBuffers, part: slice, number: int
) -> tuple[Tensor, Tensor]:
    """The logits of a block, student's and teacher's, in the place of its buffers."""
    block = spec.blocks[number]
    rows, candidates = pairing.rows, pairing.candidates
    assert rows.guide is not None
    assert candidates.guide is not None
    student = rows.columns[block.rows][part], candidates.columns[block.candidates]
    logits = multiply(*student, buffers.student[number], alpha=1 / (spec.temperature * LN_2))
    with exact_products():
        teacher = rows.guide[block.rows][part], candidates.guide[block.candidates]
        alpha = 1 / (spec.teacher_temperature * LN_2)
        of_teacher = multiply(*teacher, buffers.teacher[number], alpha=alpha)
    buffers.student[number], buffers.teacher[number] = logits, of_teacher
    return logits, of_teacher


def _add_up(buffers: SoftBuffers, peak_R: Tensor) -> SoftSums:
    peak_R.clamp_min_(LOWEST)
    teacher_peak_R = torch.stack([tile.amax(1) for tile in buffers.teacher]).amax(0)
    teacher_peak_R.clamp_min_(LOWEST)
    total_R, teacher_total_R, cross_R = (torch.zeros_like(peak_R) for _ in range(3))
    for student, teacher in zip(buffers.student, buffers.teacher):
        z, g = student.sub_(peak_R[:, None]), teacher.sub_(teacher_peak_R[:, None])
        between = torch.sub(g, z, out=buffers.between[:, : z.shape[1]])
        total_R += z.exp2_().sum(1)
        teacher_total_R += g.exp2_().sum(1)
        cross_R += between.mul_(g).sum(1)
    peaks = (peak_R.mul_(LN_2), teacher_peak_R.mul_(LN_2))
    return SoftSums(peaks[0], total_R, peaks[1], teacher_total_R, cross_R.mul_(LN_2))


def weigh_soft(
    buffers: SoftBuffers, number: int, rows: Factor, candidates: Factor, solved: SolvedSoft
) -> Weights:
    """The gradient with respect to a block's logits, times the scales of both sides.

    Args:
        buffers: as `reduce_soft` left them.
        number: of the block.
        rows: the panel's.
        candidates: the block's.
        solved: factors for these rows and the peaks of this panel.
    """
    z, g = buffers.student[number], buffers.teacher[number]
    student_R, teacher_R = row_weight(rows, solved.student), row_weight(rows, solved.teacher)
    z.mul_(student_R[:, None]).addcmul_(g, teacher_R[:, None], value=-1)
    if buffers.weights is None:
        return Weights(z)
    if candidates.scale is not None:
        z.mul_(candidates.scale)
    return Weights(buffers.weights[:, : z.shape[1]].copy_(z))
