"""`streamed_cross_entropy` where no rank holds the global batch: candidates travel from rank to rank.

Each rank keeps its own rows and receives the rows of every other rank in turn, hop by hop. A softmax then
grows with each hop (Milakov and Gimelshein 2018, arXiv:1805.02867): forward keeps each row's largest logit
and the sum of its exponentials. Backward goes round once more: it computes the logits again, adds to the
gradients of the own rows, and to those of the received rows, which travel along and come home complete
(as in ring attention, Liu et al. 2023, arXiv:2310.01889, and Inf-CL, Cheng et al. 2024, arXiv:2410.17243).

Beside the gathered form: memory for own and visiting rows instead of all rows; 4 D + 2 E products an
entry for 3 D + E; embeddings (and the guide's) travel twice and gradients once, for once each. The next
rows are on their way while these are scored.

A rank that runs out of memory between two hops goes on with less, in smaller panels: it repeats what has
changed nothing yet, and no product is added twice. The others wait for its next rows meanwhile.

Shape letters: Q own rows, G rows of a hop, R rows of a panel, C columns, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from inbatch.device.memory import retried
from inbatch.losses.base import InFlight, Ring
from inbatch.losses.softmax.packed_texts import pack_texts, paired
from inbatch.losses.softmax.pairing import Pairing, ScoredTexts
from inbatch.losses.softmax.panels import (
    LOWEST,
    Arithmetic,
    Buffers,
    Reduced,
    S,
    SoftmaxSpec,
    Weights,
    detached,
)
from inbatch.losses.softmax.products import add_product, row_weight, weight_unit
from inbatch.losses.softmax.walk import (
    Columns,
    StreamStats,
    add_own_pairs,
    drop_radial_parts,
    gradient_products,
    losses_of,
    panels,
    prepare,
    share_of_peak,
    texts_of,
)

T = TypeVar("T")
# Own rows of a panel against the rows of a hop: the gradient with respect to the logits of each block.
WeightsOf = Callable[[Pairing, slice], Iterator[tuple[slice, Iterator[Weights]]]]


def ring_cross_entropy(
    spec: SoftmaxSpec, columns: Sequence[Tensor], arithmetic: Arithmetic, ring: Ring
) -> tuple[Tensor, StreamStats]:
    """Mean over the own rows, whose candidates are the rows of all ranks.

    Its backward gives each own row the sum of all ranks' gradients, as that of `GlobalGather` does. All
    ranks must call it, and its backward, together.

    Args:
        spec: the arguments without gradient, of the own rows.
        columns: each [Q, D], Q >= 1.
        arithmetic: what is done between the products.
        ring: the way to the others.

    Returns:
        The loss, a scalar that can be differentiated once, and detached statistics.
    """
    spec, temperature = detached(spec)
    loss, *stats = _RingCrossEntropy.apply(spec, arithmetic, ring, temperature, *columns)
    return loss, StreamStats(*stats)


class _Sums(NamedTuple):
    """A softmax under way, each [Q]."""

    positive: Tensor  # logit of the positive
    peak: Tensor  # largest logit of the negatives, LOWEST at least
    negatives: Tensor  # sum of exp(logit - peak) over the negatives


class _Found(NamedTuple):
    """What the hops up to now have found."""

    sums: _Sums
    hardest: Tensor  # [Q]
    filtered: Tensor  # int64 scalar


class _Left(NamedTuple):
    """Own rows whose panels are to come in a hop."""

    rows: slice
    num_added: int  # of a panel's products, those that have been added


@dataclass(slots=True)
class RingWalk(Generic[S]):
    """The own columns on their way round; a base class."""

    spec: S
    ring: Ring
    columns: Columns
    texts: Callable[[], ScoredTexts]  # what travels

    def hops(self) -> Iterator[tuple[int, Pairing]]:
        """Owner of the rows that are here, and the own rows beside them."""
        own = self.again(self.texts)
        for owner, tensors in self.ring.hops(self.again(lambda: pack_texts(own))):
            is_own = owner == self.ring.rank
            yield owner, self.again(partial(paired, own, tensors, is_own=is_own))

    def again(self, compute: Callable[[], T]) -> T:
        """The result of `compute`, repeated with less as often as it runs out of memory."""
        return retried(compute, self._lower)

    def _lower(self) -> bool:
        halvings = self.ring.lower()
        if halvings is not None:
            self.spec = replace(self.spec, panel_halvings=halvings)
        return halvings is not None


@dataclass(slots=True)
class _Walk(RingWalk[SoftmaxSpec]):
    arithmetic: Arithmetic

    def panels(
        self, pairing: Pairing, rows: slice | None = None
    ) -> Iterator[tuple[slice, Buffers, Reduced]]:
        """Own rows of a panel, its buffers, and its negatives among the rows that are here."""
        num_candidates = len(pairing.candidates.columns[0].values)
        for part, buffers in panels(
            self.spec, pairing.rows, self.arithmetic, num_candidates, rows=rows
        ):
            yield part, buffers, self.arithmetic.reduce(self.spec, pairing, buffers, part)

    def weights(
        self, sums: _Sums, pairing: Pairing, rows: slice
    ) -> Iterator[tuple[slice, Iterator[Weights]]]:
        """The gradient with respect to logits, see `WeightsOf`; `sums` are those of whole softmaxes."""
        share_Q = share_of_peak(*sums)
        for part, buffers, reduced in self.panels(pairing, rows):
            share_R = share_Q[part] * (reduced.peak - sums.peak[part]).exp()
            yield part, self._weights_of_blocks(pairing, buffers, reduced, part, share_R)

    def _weights_of_blocks(
        self, pairing: Pairing, buffers: Buffers, reduced: Reduced, part: slice, share_R: Tensor
    ) -> Iterator[Weights]:
        for k, block in enumerate(self.spec.blocks):
            weight_R = row_weight(self.columns.factors[block.rows][part], share_R)
            candidates = pairing.candidates.columns[block.candidates]
            yield self.arithmetic.weigh(buffers, k, candidates, reduced.peak, weight_R)


class _RingCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        spec: SoftmaxSpec,
        arithmetic: Arithmetic,
        ring: Ring,
        temperature: Tensor | None,
        *columns: Tensor,
    ) -> tuple[Tensor, ...]:
        with torch.autocast(columns[0].device.type, enabled=False):
            prepared = retried(partial(prepare, spec, columns), lambda: ring.lower() is not None)
            walk = _Walk(spec, ring, prepared, partial(texts_of, spec, prepared), arithmetic)
            sums, hardest_Q, filtered = _reduce(walk)
        losses_Q, own_weight_Q = losses_of(*sums)
        ctx.walk = walk
        ctx.dtypes = tuple(column.dtype for column in columns)
        ctx.save_for_backward(*sums, own_weight_Q)
        stats = (sums.positive * spec.temperature, hardest_Q * spec.temperature, filtered)
        ctx.mark_non_differentiable(*stats)
        return losses_Q.mean(), *stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        *sums, own_weight_Q = ctx.saved_tensors
        walk, num_rows = ctx.walk, len(own_weight_Q)
        with torch.autocast(grad_loss.device.type, enabled=False):
            # Ranks may differ in their rows and in the scale of their losses.
            scale = grad_loss.to(own_weight_Q.dtype) / (num_rows * walk.spec.temperature)
            weights = partial(walk.weights, _Sums(*sums))
            gradients, of_temperature = ring_gradients(walk, weights, own_weight_Q, scale)
        of_columns = (g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes))
        return None, None, None, of_temperature, *of_columns


def _reduce(walk: _Walk) -> _Found:
    """Once round: the softmax of each own row, its hardest negative, and how many the guide removed."""
    factor = walk.columns.factors[0].values

    def nothing() -> _Found:
        like = factor.new_empty(len(factor), dtype=walk.columns.dtype)
        lowest, removed = torch.full_like(like, LOWEST), factor.new_zeros((), dtype=torch.int64)
        sums = _Sums(torch.empty_like(like), lowest, torch.zeros_like(like))
        return _Found(sums, torch.full_like(like, -torch.inf), removed)

    found = walk.again(nothing)
    for _, pairing in walk.hops():
        found = walk.again(partial(_reduce_hop, walk, pairing, found))
    return found


def _reduce_hop(walk: _Walk, pairing: Pairing, before: _Found) -> _Found:
    """Add a hop to what was found before, which stays as it is."""
    positive_Q, peak_Q, negatives_Q = (values_Q.clone() for values_Q in before.sums)
    hardest_Q, filtered = before.hardest.clone(), before.filtered.clone()
    for part, _, reduced in walk.panels(pairing):
        if pairing.own:
            positive_Q[part] = reduced.positive
        filtered += reduced.removed
        hardest_Q[part] = torch.maximum(hardest_Q[part], reduced.hardest)
        peak_R = torch.maximum(peak_Q[part], reduced.peak)
        negatives_Q[part] *= (peak_Q[part] - peak_R).exp()
        negatives_Q[part] += reduced.negatives * (reduced.peak - peak_R).exp()
        peak_Q[part] = peak_R
    return _Found(_Sums(positive_Q, peak_Q, negatives_Q), hardest_Q, filtered)


def ring_gradients(
    walk: RingWalk[S], weights: WeightsOf, own_weight_Q: Tensor, scale: Tensor
) -> tuple[list[Tensor], Tensor | None]:
    """Once more round: the gradient of all ranks' losses for each own column, [Q, D].

    The last result is the own rows' part in the gradient of a learned temperature; its sum over ranks is that
    of all their losses.

    Args:
        walk: of the own columns.
        weights: of a hop; without the target's own pairs.
        own_weight_Q: of these.
        scale: multiplies a rank's share where it has been summed up, in float32.
    """
    factors = walk.columns.factors
    scale = scale / weight_unit(factors[0])
    shape, dtype = factors[0].values.shape, walk.columns.dtype
    own_CQD = walk.again(lambda: factors[0].values.new_zeros(len(factors), *shape, dtype=dtype))
    under_way: InFlight | None = None
    for owner, pairing in walk.hops():
        received = pairing.candidates.columns
        theirs_shape = (len(received), *received[0].values.shape)
        theirs_CGD = walk.again(partial(own_CQD.new_zeros, theirs_shape))
        both = (own_CQD.unbind(0), theirs_CGD.unbind(0))
        left = [_Left(slice(0, shape[0]), 0)]
        while left:
            walk.again(partial(_add_panels, walk, weights, pairing, both, left))
        theirs_CGD *= scale
        if under_way is not None:
            theirs_CGD += under_way.wait()[0]
        under_way = walk.ring.pass_on(theirs_CGD, owner)
    spec = walk.spec
    add_own_pairs(spec, walk.columns, spec.rows, own_weight_Q, own_CQD.unbind(0))
    own_CQD *= scale
    assert under_way is not None
    own_CQD += under_way.wait()[0]
    gradients = list(own_CQD.unbind(0))
    of_temperature = drop_radial_parts(spec, walk.columns, gradients)
    slopes = walk.columns.slopes
    scaled = [g if slope is None else g * slope for g, slope in zip(gradients, slopes)]
    return scaled, of_temperature


def _add_panels(
    walk: RingWalk[S],
    weights: WeightsOf,
    pairing: Pairing,
    both: tuple[Sequence[Tensor], Sequence[Tensor]],
    left: list[_Left],
) -> None:
    """Add what the rows that are left last give to both gradients, panel by panel.

    Memory runs out before a product is added or not at all, so `left` says at any time what is to be done.
    """
    rows, num_added = left[-1]
    factors, received = walk.columns.factors, pairing.candidates.columns
    for part, by_block in weights(pairing, rows):
        left[-1:] = [_Left(slice(part.stop, rows.stop), num_added), _Left(part, num_added)]
        for k, (block, of_block) in enumerate(zip(walk.spec.blocks, by_block)):
            products = gradient_products(of_block, block, factors, received, both, part)
            for number, product in enumerate(products, 2 * k):
                if number >= num_added:
                    add_product(*product)
                    left[-1] = _Left(part, number + 1)
        left.pop()
    left.pop()
