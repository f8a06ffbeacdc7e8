"""Distillation of a guide's similarities into an encoder, over the global batch.

A matrix of cosines is S = U V^T, with rows of length one, and the guide's T = G H^T. The sum of squares of
S - T needs neither of them::

    |S - T|^2 = <U^T U, V^T V> - 2 <G^T U, H^T V> + <G^T G, H^T H>

and the gradient by U is 2 (U V^T V - G H^T V). So the batch enters by its second moments, D x D, E x D and
E x E, which cost D + E products a row and dimension, and not one for each candidate. The terms nearly cancel
once the student follows its teacher; moments are therefore summed in float64.

Shape letters: G global rows, B rows this rank owns, D dimension, E guide dimension, R rows of a panel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from inbatch.errors import ConfigError
from inbatch.losses.base import Loss, LossInput, LossOutput, Published, Ring
from inbatch.losses.checks import check_choice, check_inputs
from inbatch.losses.directions import PAIR_DIRECTIONS, PairDirection
from inbatch.losses.pairs import full_precision

_PANEL_ROWS = 4096  # in float64 at a time

_PUBLISHED = Published(
    None,
    heading="Similarity-preserving distillation",
    bibtex="""@inproceedings{tung2019similarity,
    title = {Similarity-Preserving Knowledge Distillation},
    author = {Frederick Tung and Greg Mori},
    booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)},
    year = {2019},
    eprint = {1907.09682},
    archivePrefix = {arXiv},
    primaryClass = {cs.CV}
}""",
)


@dataclass(frozen=True)
class SimilarityMSE(Loss):
    """Mean of ``(s(x, y) - t(x, y))^2`` over pairs of texts of the global batch.

    s is the encoder's cosine and t the guide's, whose embeddings may have another dimension. The pairs, by
    direction, with queries q_i, positives p_i and documents d (the positives and all negatives):

    - query_to_doc: q_i with all documents.
    - query_to_query: q_i with all queries.
    - doc_to_doc: p_i with all documents.

    Every text of the batch takes part, whatever its row; there are no negatives, and no temperature. A text's
    pair with itself counts as 0. The guide is the teacher. Computed by second moments of the batch, see the
    module: no matrix of similarities is made, and a row costs the same in a batch of any size.
    Paper: Tung and Mori 2019, Similarity-Preserving Knowledge Distillation, arXiv:1907.09682, with cosines
    in place of normalised rows.
    """

    directions: Sequence[PairDirection] = PAIR_DIRECTIONS

    needs_guide: ClassVar[bool] = True
    ignores_lengths: ClassVar[bool] = True
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", tuple(self.directions))
        for direction in self.directions:
            check_choice("directions", direction, PAIR_DIRECTIONS)
        if not self.directions or len(set(self.directions)) < len(self.directions):
            raise ConfigError(
                "directions",
                "is empty or names a direction twice",
                f"list one or more of {', '.join(PAIR_DIRECTIONS)}, each once",
                value=list(self.directions),
            )

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Mean over the owned rows. Raises ConfigError without guide embeddings of each column."""
        check_inputs(self, inputs)
        guide = [normalize(full_precision(column.detach()), dim=1) for column in inputs.guide or ()]
        spec = _Spec(
            blocks=self._blocks(len(inputs.columns)),
            rows=inputs.rows,
            num_global=inputs.num_global,
            guide=guide,
            ring=inputs.ring,
            panel_rows=max(1, _PANEL_ROWS >> inputs.panel_halvings),
        )
        units = [normalize(full_precision(column), dim=1) for column in inputs.columns]
        loss: Tensor = _SimilarityMSE.apply(spec, *units)
        return LossOutput(loss, {"similarity_rmse": loss.detach().clamp(min=0).sqrt()})

    def _blocks(self, num_columns: int) -> list[tuple[int, int]]:
        """Column of the rows and column of the candidates of each matrix of similarities."""
        documents = range(1, num_columns)
        found = {
            "query_to_doc": [(0, k) for k in documents],
            "query_to_query": [(0, 0)],
            "doc_to_doc": [(1, k) for k in documents],
        }
        return [block for direction in self.directions for block in found[direction]]


class _Moments(NamedTuple):
    """Second moments of some rows, float64."""

    own: Tensor  # [D, D]
    cross: Tensor  # [E, D], of the guide's with the encoder's
    guide: Tensor  # [E, E]

    def times(self, scale: Tensor) -> _Moments:
        """All of them multiplied by a number."""
        return _Moments(*(moment * scale for moment in self))

    def plus(self, other: _Moments) -> _Moments:
        """Those of the rows of both."""
        return _Moments(*(a + b for a, b in zip(self, other)))

    def error(self, other: _Moments) -> Tensor:
        """Sum of squared differences over all pairs of these rows and the others, a scalar."""
        own, cross, guide = ((a * b).sum() for a, b in zip(self, other))
        return own - 2 * cross + guide

    def gradient(self, units_RD: Tensor, guide_RE: Tensor) -> Tensor:
        """Half the gradient of `error` by rows whose moments are not these, [R, D]."""
        return units_RD.double() @ self.own - guide_RE.double() @ self.cross


class _Spec(NamedTuple):
    """The arguments without gradient."""

    blocks: list[tuple[int, int]]
    rows: slice
    num_global: int
    guide: list[Tensor]
    ring: Ring | None
    panel_rows: int

    def panels(self, num_rows: int) -> Iterator[slice]:
        """Rows that are in float64 at a time."""
        for start in range(0, num_rows, self.panel_rows):
            yield slice(start, min(start + self.panel_rows, num_rows))

    def moments(self, units_GD: Tensor, guide_GE: Tensor) -> _Moments:
        """Of these rows."""
        (_, width), (_, guide_width) = units_GD.shape, guide_GE.shape
        own = units_GD.new_zeros(width, width, dtype=torch.float64)
        cross, guide = own.new_zeros(guide_width, width), own.new_zeros(guide_width, guide_width)
        for panel in self.panels(len(units_GD)):
            u_RD, g_RE = units_GD[panel].double(), guide_GE[panel].double()
            own.addmm_(u_RD.T, u_RD)
            cross.addmm_(g_RE.T, u_RD)
            guide.addmm_(g_RE.T, g_RE)
        return _Moments(own, cross, guide)

    def visible(self, columns: Sequence[Tensor], scale: Tensor | None = None) -> list[_Moments]:
        """Moments of each column's rows, of all ranks; with a `scale` each rank multiplies its own."""
        if self.ring is None:
            found = [self.moments(u, g) for u, g in zip(columns, self.guide)]
            return found if scale is None else [moments.times(scale) for moments in found]
        units_CQD, guide_CQE = torch.stack(tuple(columns)), torch.stack(self.guide)
        own = units_CQD.new_ones(units_CQD.shape[:2], dtype=torch.float64)
        travelling = [units_CQD, guide_CQE, own if scale is None else own * scale]
        total: list[_Moments] | None = None
        for _, (units, guide, weights) in self.ring.hops(travelling):
            found = [self.moments(u, g).times(w[0]) for u, g, w in zip(units, guide, weights)]
            total = found if total is None else [a.plus(b) for a, b in zip(total, found)]
        assert total is not None
        return total


class _SimilarityMSE(torch.autograd.Function):
    """Columns of unit rows -> the mean over the owned rows.

    Gathered columns hold all rows, and each of them gets the gradient of the owned rows' loss. In a ring they
    hold the owned rows, which get the gradient of all ranks' losses.
    """

    @staticmethod
    def forward(ctx: Any, spec: _Spec, *columns: Tensor) -> Tensor:
        with torch.autocast(columns[0].device.type, enabled=False):
            everywhere = spec.visible(columns)
            own = _of_owned(spec, columns)
            total = sum(
                (own[a].error(everywhere[c]) for a, c in spec.blocks), own[0].own.new_zeros(())
            )
        num_rows = spec.rows.stop - spec.rows.start
        ctx.count = num_rows * spec.num_global * len(spec.blocks)
        ctx.spec, ctx.everywhere, ctx.own = spec, everywhere, own
        ctx.save_for_backward(*columns)
        return (total / ctx.count).to(columns[0].dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        columns, spec = ctx.saved_tensors, ctx.spec
        scale = grad_loss.double() * (2 / ctx.count)
        with torch.autocast(grad_loss.device.type, enabled=False):
            # Ranks may differ in their rows and in the scale of their losses.
            rows_of = (
                [moments.times(scale) for moments in ctx.own]
                if spec.ring is None
                else spec.visible(columns, scale)
            )
            gradients = []
            for k, (units_GD, guide_GE) in enumerate(zip(columns, spec.guide)):
                gradient_GD = torch.zeros_like(units_GD)
                as_candidates = [rows_of[a] for a, c in spec.blocks if c == k]
                as_rows = [ctx.everywhere[c].times(scale) for a, c in spec.blocks if a == k]
                _add(spec, gradient_GD, units_GD, guide_GE, as_candidates)
                own = spec.rows
                _add(spec, gradient_GD[own], units_GD[own], guide_GE[own], as_rows)
                gradients.append(gradient_GD)
        return None, *gradients


def _of_owned(spec: _Spec, columns: Sequence[Tensor]) -> list[_Moments]:
    return [spec.moments(u[spec.rows], g[spec.rows]) for u, g in zip(columns, spec.guide)]


def _add(
    spec: _Spec,
    gradient_GD: Tensor,
    units_GD: Tensor,
    guide_GE: Tensor,
    moments: Sequence[_Moments],
) -> None:
    """Add the gradient by these rows of their pairs with the rows that have these moments."""
    if not moments:
        return
    total = moments[0]
    for other in moments[1:]:
        total = total.plus(other)
    for panel in spec.panels(len(units_GD)):
        gradient_GD[panel] += total.gradient(units_GD[panel], guide_GE[panel]).to(gradient_GD.dtype)
