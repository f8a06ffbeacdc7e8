"""Global orthogonal regularization: embeddings of unrelated texts spread out over the sphere.

Shape letters: G rows of a column, D dimension, C columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, relu

from inbatch.errors import ConfigError
from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_choice, check_inputs, check_number
from inbatch.losses.pairs import full_precision

_PUBLISHED = Published(
    "GlobalOrthogonalRegularizationLoss",
    bibtex="""@misc{zhang2017learningspreadoutlocalfeature,
    title = {Learning Spread-out Local Feature Descriptors},
    author = {Xu Zhang and Felix X. Yu and Sanjiv Kumar and Shih-Fu Chang},
    year = {2017},
    eprint = {1708.06320},
    archivePrefix = {arXiv},
    primaryClass = {cs.CV}
}""",
)


def moments(rows_GD: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the dot products of different rows, and mean of their squares; 0 of a single row.

    No G x G matrix is made where that is larger than D x D: the squares of all products add up to those of
    the entries of ``rows.T @ rows``. Time O(G D min(G, D)), memory O(min(G, D)^2). Sums are in float64, since
    little is left of them.
    """
    num_rows, dim = rows_GD.shape
    num_pairs = max(num_rows * (num_rows - 1), 1)
    own_G = rows_GD.double().square().sum(1)
    first = (rows_GD.sum(0, dtype=torch.float64).square().sum() - own_G.sum()) / num_pairs
    gram = rows_GD @ rows_GD.T if num_rows < dim else rows_GD.T @ rows_GD
    second = (gram.double().square().sum() - own_G.square().sum()) / num_pairs
    return first, second


@dataclass(frozen=True)
class GlobalOrthogonalRegularization(Loss):
    """``mean_weight * M1^2 + second_moment_weight * max(0, M2 - 1 / D)`` of each text column.

    M1 is the mean similarity of two different texts of a column of the global batch, M2 the mean of its
    square; for points spread evenly over a sphere they are 0 and 1 / D. `aggregation` takes the mean of
    the columns, or their sum. It says nothing of which texts belong together: add it to a loss that does.

    Equals sentence-transformers' GlobalOrthogonalRegularizationLoss (the sum of its terms) on one process.
    Papers: Zhang et al. 2017, arXiv:1708.06320; with ``mean_weight=0`` and ``aggregation="sum"`` in Schechter
    Vera et al. 2025, EmbeddingGemma, arXiv:2509.20354.
    """

    similarity: Literal["cosine", "dot"] = "cosine"
    mean_weight: float = 1.0
    second_moment_weight: float = 1.0
    aggregation: Literal["mean", "sum"] = "mean"

    scope: ClassVar[Literal["global"]] = "global"
    takes_lists: ClassVar[bool] = True
    min_columns: ClassVar[int] = 1
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, ("cosine", "dot"))
        check_choice("aggregation", self.aggregation, ("mean", "sum"))
        for name in ("mean_weight", "second_moment_weight"):
            check_number(name, getattr(self, name))
        if not (self.mean_weight or self.second_moment_weight):
            raise ConfigError(
                "second_moment_weight",
                "is 0, and so is mean_weight, which leaves nothing of the loss",
                "set one of them",
                value=self.second_moment_weight,
            )

    @property
    def ignores_lengths(self) -> bool:
        """True of cosines."""
        return self.similarity == "cosine"

    def __call__(self, inputs: LossInput) -> LossOutput:
        """One value of the global batch."""
        check_inputs(self, inputs)
        with torch.autocast(inputs.columns[0].device.type, enabled=False):
            found = [moments(self._rows(column)) for column in inputs.columns]
        first_C, second_C = (torch.stack(values) for values in zip(*found))
        excess_C = relu(second_C - 1 / inputs.columns[0].shape[1])
        terms_C = self.mean_weight * first_C.square() + self.second_moment_weight * excess_C
        loss = terms_C.sum() if self.aggregation == "sum" else terms_C.mean()
        loss = loss.to(torch.promote_types(inputs.columns[0].dtype, torch.float32))
        metrics = {
            "mean_similarity": first_C.detach().mean().float(),
            "second_moment": second_C.detach().mean().float(),
        }
        return LossOutput(loss, metrics)

    def _rows(self, column_GD: Tensor) -> Tensor:
        rows_GD = full_precision(column_GD)
        return normalize(rows_GD, dim=1) if self.similarity == "cosine" else rows_GD
