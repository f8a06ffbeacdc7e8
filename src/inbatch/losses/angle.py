"""AnglE: CoSENT on angles in complex space. Shape letters: G global rows, N pairs, D dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inbatch.errors import ConfigError
from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_inputs, check_number
from inbatch.losses.cosent import cosent
from inbatch.losses.pairs import pair_angle


def labelled_pairs(inputs: LossInput) -> tuple[Tensor, Tensor, Tensor]:
    """First texts [N, D], second texts [N, D] and labels [N] of all pairs.

    Two columns are pairs already. More are taken apart: (query, positive) with the row's label (1
    if there is none), and (query, negative) with 1 - label.
    """
    query_GD, *others = inputs.columns
    labels_G = inputs.labels
    if labels_G is None:
        labels_G = query_GD.new_ones(query_GD.shape[0])
    labels = [labels_G, *([1 - labels_G] * (len(others) - 1))]
    return query_GD.repeat(len(others), 1), torch.cat(others), torch.cat(labels)


_PUBLISHED = Published(
    "AnglELoss",
    bibtex="""@misc{li2023angle,
    title = {AnglE-optimized Text Embeddings},
    author = {Xianming Li and Jing Li},
    year = {2023},
    eprint = {2309.12871},
    archivePrefix = {arXiv},
    primaryClass = {cs.CL}
}""",
)


@dataclass(frozen=True)
class AnglE(Loss):
    """`cosent` with the absolute value of cosine + sine as the similarity; see `pair_angle`.

    Takes labelled pairs, or queries with positives and negatives, whose labels default to 1 and 0.
    Equals sentence-transformers' AnglELoss of the global batch, ``scale = 1 / temperature``.
    Paper: Li and Li 2023, arXiv:2309.12871.
    """

    temperature: float = 0.05

    scope: ClassVar[Literal["global"]] = "global"
    needs_labels: ClassVar[bool] = False  # with two columns it does, which `__call__` checks
    takes_labels: ClassVar[bool] = True
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)

    def __call__(self, inputs: LossInput) -> LossOutput:
        """One value of the global batch. Raises ConfigError for pairs without labels."""
        check_inputs(self, inputs)
        if len(inputs.columns) == 2 and inputs.labels is None:
            raise ConfigError(
                "loss",
                "needs a label for each row of 2 text columns but the batch has none",
                "name the label column of the data or add a column of negatives",
                value="AnglE",
            )
        first_ND, second_ND, labels_N = labelled_pairs(inputs)
        angle_N = pair_angle(first_ND, second_ND)
        loss = cosent(angle_N, labels_N, temperature=self.temperature)
        return LossOutput(loss, {"mean_similarity": angle_N.detach().mean()})
