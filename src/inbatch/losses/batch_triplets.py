"""Triplet losses whose triplets are found in a batch of labelled texts.

Every text is an anchor. Texts of its label are its positives, all others its negatives, among the texts of
the global batch. Shape letters: G texts, R anchors of a panel, N texts of all columns, D dimension.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from inbatch.losses.anchors import ANCHOR_DISTANCES, AnchorDistance, sum_over_anchors
from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_choice, check_inputs, check_number

_HERMANS = """@misc{hermans2017defense,
    title = {In Defense of the Triplet Loss for Person Re-Identification},
    author = {Alexander Hermans and Lucas Beyer and Bastian Leibe},
    year = {2017},
    eprint = {1703.07737},
    archivePrefix = {arXiv},
    primaryClass = {cs.CV}
}"""


class Tile(NamedTuple):
    """Some anchors and all texts."""

    distance: Tensor  # [R, G]
    positive: Tensor  # bool [R, G], the anchor's label and not itself
    negative: Tensor  # bool [R, G]

    @property
    def has_triplet(self) -> Tensor:
        """Anchors that have both, bool [R]."""
        return self.positive.any(1) & self.negative.any(1)


class Found(NamedTuple):
    """What a panel adds up to, scalars."""

    loss: Tensor
    active: Tensor  # triplets whose loss is not 0
    triplets: Tensor  # that were looked at


@dataclass(frozen=True)
class BatchTriplet(Loss):
    """Base of the four below: which triplets of an anchor count.

    One text column, or several, whose texts all have the label of their row.
    """

    distance: AnchorDistance = "euclidean"

    needs_labels: ClassVar[bool] = True
    labels_are_classes: ClassVar[bool] = True
    min_columns: ClassVar[int] = 1
    takes_ring: ClassVar[bool] = False
    published: ClassVar[Published] = Published("BatchHardTripletLoss", bibtex=_HERMANS)

    def __post_init__(self) -> None:
        check_choice("distance", self.distance, ANCHOR_DISTANCES)

    @property
    def ignores_lengths(self) -> bool:
        """True of cosines."""
        return self.distance == "cosine"

    @abstractmethod
    def of_tile(self, tile: Tile) -> Found:
        """The losses of a panel's triplets, added up."""

    def divisor(self, inputs: LossInput, labels_N: Tensor) -> Tensor | int:
        """What the sum over all anchors of the global batch is divided by: their number."""
        return len(labels_N)

    def __call__(self, inputs: LossInput) -> LossOutput:
        """The share of the owned rows, times G / B. Raises ConfigError without labels."""
        check_inputs(self, inputs)
        assert inputs.labels is not None
        num_rows, labels_N = len(inputs.labels), inputs.labels.repeat(len(inputs.columns))
        owned = [
            slice(column * num_rows + inputs.rows.start, column * num_rows + inputs.rows.stop)
            for column in range(len(inputs.columns))
        ]
        value, numbers = self._sum(inputs, labels_N, owned)
        share = num_rows / (inputs.rows.stop - inputs.rows.start)
        loss = value * share / self.divisor(inputs, labels_N)
        active, triplets, near, positives, far, negatives = numbers.unbind()
        metrics = {
            "positive_distance": near / positives,
            "negative_distance": far / negatives,
            "active_share": active / triplets,
        }
        return LossOutput(loss, metrics)

    def _sum(
        self, inputs: LossInput, labels_N: Tensor, anchors: list[slice]
    ) -> tuple[Tensor, Tensor]:
        """The losses of some anchors, added up, and numbers for the metrics, [6]."""

        def of_panel(distance_RG: Tensor, part: slice) -> tuple[Tensor, Tensor]:
            same_RG = labels_N[part, None] == labels_N
            numbers_R = torch.arange(part.start, part.stop, device=labels_N.device)
            itself_RG = numbers_R[:, None] == torch.arange(len(labels_N), device=labels_N.device)
            tile = Tile(distance_RG, same_RG & ~itself_RG, ~same_RG)
            found = self.of_tile(tile)
            sums = [found.active, found.triplets]
            for mask_RG in (tile.positive, tile.negative):
                sums += [(distance_RG.detach() * mask_RG).sum(), mask_RG.sum()]
            return found.loss, torch.stack([each.to(distance_RG.dtype) for each in sums])

        return sum_over_anchors(
            of_panel,
            torch.cat(inputs.columns),
            anchors,
            distance=self.distance,
            panel_halvings=inputs.panel_halvings,
        )


def _hardest(tile: Tile) -> tuple[Tensor, Tensor]:
    """Distance of the farthest positive and of the nearest negative of each anchor, [R]; 0 where none is."""
    far_R = torch.where(tile.positive, tile.distance, -torch.inf).max(1).values
    near_R = torch.where(tile.negative, tile.distance, torch.inf).min(1).values
    both_R = tile.has_triplet
    return torch.where(both_R, far_R, 0), torch.where(both_R, near_R, 0)


@final
@dataclass(frozen=True)
class BatchHardTriplet(BatchTriplet):
    """Mean over anchors of ``max(0, d(farthest positive) - d(nearest negative) + margin)``.

    An anchor without a positive or without a negative in the batch has loss 0.
    Equals sentence-transformers' BatchHardTripletLoss. Paper: Hermans et al. 2017, arXiv:1703.07737.
    """

    margin: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("margin", self.margin)

    def of_tile(self, tile: Tile) -> Found:
        """One triplet for each anchor that has one."""
        positive_R, negative_R = _hardest(tile)
        loss_R = relu(positive_R - negative_R + self.margin) * tile.has_triplet
        return Found(loss_R.sum(), (loss_R > 0).sum(), tile.has_triplet.sum())


@final
@dataclass(frozen=True)
class BatchHardSoftMarginTriplet(BatchTriplet):
    """Mean over anchors of ``log(1 + exp(d(farthest positive) - d(nearest negative)))``.

    An anchor without a positive or without a negative in the batch has loss 0.
    Equals sentence-transformers' BatchHardSoftMarginTripletLoss. Paper: Hermans et al. 2017,
    arXiv:1703.07737.
    """

    published: ClassVar[Published] = Published("BatchHardSoftMarginTripletLoss", bibtex=_HERMANS)

    def of_tile(self, tile: Tile) -> Found:
        """One triplet for each anchor that has one; active is one whose negative is the nearer."""
        positive_R, negative_R = _hardest(tile)
        loss_R = softplus(positive_R - negative_R) * tile.has_triplet
        return Found(loss_R.sum(), (positive_R > negative_R).sum(), tile.has_triplet.sum())


@final
@dataclass(frozen=True)
class BatchSemiHardTriplet(BatchTriplet):
    """Mean over pairs of anchor and positive of ``max(0, d(positive) - d(negative) + margin)``.

    The negative is the nearest one that is farther than the positive, or the farthest of all if none is.
    Pairs without a negative in the batch have loss 0. Equals sentence-transformers' BatchSemiHardTripletLoss.
    Paper: Schroff et al. 2015, FaceNet, arXiv:1503.03832.
    """

    margin: float = 5.0

    published: ClassVar[Published] = Published("BatchSemiHardTripletLoss", bibtex=_HERMANS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("margin", self.margin)

    def of_tile(self, tile: Tile) -> Found:
        """One triplet for each pair."""
        distance_RG = tile.distance
        sorted_RG = torch.where(tile.negative, distance_RG, torch.inf).sort(1).values
        place_RG = torch.searchsorted(sorted_RG.detach(), distance_RG.detach(), right=True)
        outside_RG = sorted_RG.gather(1, place_RG.clamp(max=sorted_RG.shape[1] - 1))
        farthest_R1 = torch.where(tile.negative, distance_RG, -torch.inf).max(1, True).values
        negative_RG = torch.where(outside_RG.isfinite(), outside_RG, farthest_R1)
        pairs_RG = tile.positive & negative_RG.isfinite()
        gap_RG = torch.where(pairs_RG, distance_RG - negative_RG, -torch.inf)
        loss_RG = relu(gap_RG + self.margin)
        return Found(loss_RG.sum(), (loss_RG > 0).sum(), pairs_RG.sum())

    def divisor(self, inputs: LossInput, labels_N: Tensor) -> Tensor | int:
        """Pairs of the global batch, at least 1."""
        ordered_N = labels_N.sort().values
        ends = [torch.searchsorted(ordered_N, ordered_N, right=right) for right in (True, False)]
        return (ends[0] - ends[1] - 1).sum().clamp_min(1)


@final
@dataclass(frozen=True)
class BatchAllTriplet(BatchTriplet):
    """Mean of ``max(0, d(positive) - d(negative) + margin)`` over all triplets where it is not 0.

    Equals sentence-transformers' BatchAllTripletLoss. Time O(G^2 (D + log G)) and the memory of a panel,
    though there are up to G^3 triplets: the gradient of a distance is the number of the active triplets
    that it is in, which a sorted row tells. The sum is divided by the number of active triplets of all G
    anchors, which each rank counts for itself: that part of the work does not shrink with more ranks.
    Paper: Hermans et al. 2017, arXiv:1703.07737.
    """

    margin: float = 5.0

    published: ClassVar[Published] = Published("BatchAllTripletLoss", bibtex=_HERMANS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("margin", self.margin)

    def of_tile(self, tile: Tile) -> Found:
        """All triplets of the anchors."""
        reach_RG = tile.distance + self.margin  # negatives below it are active beside a positive
        fixed_RG, fixed_reach_RG = tile.distance.detach(), reach_RG.detach()
        negatives_RG = torch.where(tile.negative, fixed_RG, torch.inf).sort(1).values
        below_RG = torch.searchsorted(negatives_RG, fixed_reach_RG.contiguous()) * tile.positive
        reaches_RG = torch.where(tile.positive, fixed_reach_RG, -torch.inf).sort(1).values
        places_RG = torch.searchsorted(reaches_RG, fixed_RG.contiguous(), right=True)
        above_RG = (reaches_RG.shape[1] - places_RG) * tile.negative
        loss = (below_RG * reach_RG).sum() - (above_RG * tile.distance).sum()
        triplets = (tile.positive.sum(1) * tile.negative.sum(1)).sum()
        return Found(loss, below_RG.sum(), triplets)

    def divisor(self, inputs: LossInput, labels_N: Tensor) -> Tensor | int:
        """Active triplets of the global batch, at least 1."""
        with torch.no_grad():
            _, numbers = self._sum(inputs, labels_N, [slice(0, len(labels_N))])
        return numbers[0].clamp_min(1)
