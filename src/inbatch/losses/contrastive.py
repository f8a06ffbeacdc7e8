"""Contrastive loss of labelled pairs. Shape letters: G global rows, B rows this rank owns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import relu

from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_choice, check_inputs, check_number
from inbatch.losses.pairs import DISTANCES, Distance, full_precision, masked_mean, pair_distance

# What torch's pairwise_distance adds to each coordinate.
DISTANCE_EPS = 1e-6


def contrastive_terms(distance_N: Tensor, labels_N: Tensor, *, margin: float) -> Tensor:
    """``(y d^2 + (1 - y) max(0, margin - d)^2) / 2`` of each pair, [N]."""
    apart_N = relu(margin - distance_N).square()
    return 0.5 * (labels_N * distance_N.square() + (1 - labels_N) * apart_N)


def distance_metrics(distance_N: Tensor, labels_N: Tensor) -> dict[str, Tensor]:
    """Mean distance of the pairs labelled 1 and 0."""
    distance_N = distance_N.detach()
    return {
        "positive_distance": masked_mean(distance_N, labels_N == 1),
        "negative_distance": masked_mean(distance_N, labels_N == 0),
    }


PUBLISHED = Published(
    "ContrastiveLoss",
    bibtex="""@inproceedings{hadsell2006dimensionality,
    title = {Dimensionality Reduction by Learning an Invariant Mapping},
    author = {Hadsell, R. and Chopra, S. and LeCun, Y.},
    booktitle = {2006 IEEE Computer Society Conference on Computer Vision and Pattern Recognition
        (CVPR'06)},
    year = {2006},
    volume = {2},
    pages = {1735-1742},
    doi = {10.1109/CVPR.2006.100}
}""",
)


@dataclass(frozen=True)
class Contrastive(Loss):
    """Pull pairs with label 1 together, push pairs with label 0 at least `margin` apart.

    Mean over the rows of ``(y d^2 + (1 - y) max(0, margin - d)^2) / 2``; with
    ``size_average=False`` the sum over the global batch. Labels between 0 and 1 weigh both terms.
    Equals sentence-transformers' ContrastiveLoss. Paper: Hadsell et al. 2006, "Dimensionality
    Reduction by Learning an Invariant Mapping".
    """

    margin: float = 0.5
    distance: Distance = "cosine"
    size_average: bool = True

    needs_labels: ClassVar[bool] = True
    max_columns: ClassVar[int | None] = 2
    published: ClassVar[Published] = PUBLISHED
    label_range: ClassVar[tuple[float, float]] = (0, 1)

    def __post_init__(self) -> None:
        check_number("margin", self.margin)
        check_choice("distance", self.distance, DISTANCES)

    @property
    def scope(self) -> Literal["row", "global"]:
        """A mean needs the owned rows; a sum, not being a mean over rows, needs all."""
        return "row" if self.size_average else "global"

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Mean over the owned rows or sum over all. Raises ConfigError unless pairs with labels."""
        check_inputs(self, inputs)
        assert inputs.labels is not None
        rows = inputs.rows if self.size_average else slice(None)
        labels_N = full_precision(inputs.labels[rows])
        distance_N = pair_distance(
            inputs.columns[0][rows], inputs.columns[1][rows], kind=self.distance, eps=DISTANCE_EPS
        )
        terms_N = contrastive_terms(distance_N, labels_N, margin=self.margin)
        loss = terms_N.mean() if self.size_average else terms_N.sum()
        return LossOutput(loss, distance_metrics(distance_N, labels_N))
