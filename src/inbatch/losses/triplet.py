"""Triplet loss. Shape letters: B rows this rank owns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.nn.functional import relu

from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_choice, check_inputs, check_number
from inbatch.losses.pairs import DISTANCES, Distance, pair_distance

_PUBLISHED = Published(
    "TripletLoss",
    bibtex="""@inproceedings{schroff2015facenet,
    title = {FaceNet: A Unified Embedding for Face Recognition and Clustering},
    author = {Florian Schroff and Dmitry Kalenichenko and James Philbin},
    booktitle = {2015 IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
    year = {2015},
    eprint = {1503.03832},
    archivePrefix = {arXiv}
}""",
)


@dataclass(frozen=True)
class Triplet(Loss):
    """Mean over the rows of ``max(0, d(query, positive) - d(query, negative) + margin)``.

    The default margin suits embeddings that are not normalised; cosine distances are at most 2.
    Equals sentence-transformers' TripletLoss (margin is its ``triplet_margin``).
    Paper: Schroff et al. 2015, FaceNet, arXiv:1503.03832.
    """

    distance: Distance = "euclidean"
    margin: float = 5.0

    scope: ClassVar[Literal["row"]] = "row"
    min_columns: ClassVar[int] = 3
    max_columns: ClassVar[int | None] = 3
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        check_number("margin", self.margin)
        check_choice("distance", self.distance, DISTANCES)

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Mean over the owned rows. Raises ConfigError unless there are three columns."""
        check_inputs(self, inputs)
        query_BD, positive_BD, negative_BD = (column[inputs.rows] for column in inputs.columns)
        near_B = pair_distance(query_BD, positive_BD, kind=self.distance)
        far_B = pair_distance(query_BD, negative_BD, kind=self.distance)
        terms_B = relu(near_B - far_B + self.margin)
        metrics = {
            "positive_distance": near_B.detach().mean(),
            "negative_distance": far_B.detach().mean(),
            "active_share": (terms_B.detach() > 0).to(terms_B.dtype).mean(),
        }
        return LossOutput(terms_B.mean(), metrics)
