"""Contrastive loss of the hard pairs of a batch. Shape letters: G global rows, D dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import relu

from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_choice, check_inputs, check_number
from inbatch.losses.contrastive import DISTANCE_EPS, PUBLISHED, distance_metrics
from inbatch.losses.pairs import DISTANCES, Distance, masked_mean, pair_distance


def hard_pairs(distance_G: Tensor, labels_G: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of the hard positives and the hard negatives, [G] each; no wait for the device.

    Hard negatives are nearer than the farthest positive (without positives: than the mean
    negative); hard positives are farther than the nearest negative (or than the mean positive).
    """
    positive_G, negative_G = labels_G == 1, labels_G == 0
    farthest = torch.where(positive_G, distance_G, -torch.inf).amax()
    nearest = torch.where(negative_G, distance_G, torch.inf).amin()
    farthest = torch.where(positive_G.any(), farthest, masked_mean(distance_G, negative_G))
    nearest = torch.where(negative_G.any(), nearest, masked_mean(distance_G, positive_G))
    return positive_G & (distance_G > nearest), negative_G & (distance_G < farthest)


@dataclass(frozen=True)
class OnlineContrastive(Loss):
    """Contrastive loss of hard positives and hard negatives, chosen within the global batch.

    The sum, not the mean, of d^2 over hard positives and of max(0, margin - d)^2 over hard
    negatives; see `hard_pairs`. Pairs with labels other than 0 and 1 do not take part.
    Equals sentence-transformers' OnlineContrastiveLoss of the global batch.
    """

    margin: float = 0.5
    distance: Distance = "cosine"

    scope: ClassVar[Literal["global"]] = "global"
    needs_labels: ClassVar[bool] = True
    max_columns: ClassVar[int | None] = 2
    published: ClassVar[Published] = PUBLISHED._replace(
        name="OnlineContrastiveLoss", heading="ContrastiveLoss"
    )
    label_range: ClassVar[tuple[float, float]] = (0, 1)

    def __post_init__(self) -> None:
        check_number("margin", self.margin)
        check_choice("distance", self.distance, DISTANCES)

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Sum over the global batch. Raises ConfigError unless pairs with labels."""
        check_inputs(self, inputs)
        assert inputs.labels is not None
        query_GD, other_GD = inputs.columns
        distance_G = pair_distance(query_GD, other_GD, kind=self.distance, eps=DISTANCE_EPS)
        positive_G, negative_G = hard_pairs(distance_G.detach(), inputs.labels)
        loss = (
            torch.where(positive_G, distance_G, 0).square().sum()
            + torch.where(negative_G, relu(self.margin - distance_G), 0).square().sum()
        )
        return LossOutput(loss, distance_metrics(distance_G, inputs.labels))
