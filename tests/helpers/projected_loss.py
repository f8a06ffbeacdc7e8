"""A loss that trains a matrix, and a number that runs into its bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inbatch.losses import Loss, LossInput, LossOutput, LossParameter


def _fill_matrix(matrix: Tensor, draws: torch.Generator) -> None:
    matrix.normal_(generator=draws)


def _fill_number(number: Tensor, draws: torch.Generator) -> None:
    number.fill_(0.1)


@dataclass(frozen=True)
class Projected(Loss):
    """Squared distance of query and positive after a projection, and a parabola.

    Plain SGD at a rate of 0.5 takes the number from 0.1 to 0.85, which is beyond its bound of 0.5, and from
    there to 0.05; without the bound it would go to 0.4.
    """

    width: int = 3

    scope: ClassVar[Literal["row"]] = "row"

    def parameters(self, *, dim: int, guide_dim: int | None) -> Mapping[str, LossParameter]:
        return {
            "projection": LossParameter((dim, self.width), _fill_matrix),
            "number": LossParameter((1,), _fill_number, most=0.5),
        }

    def __call__(self, inputs: LossInput) -> LossOutput:
        query, positive = (column[inputs.rows] for column in inputs.columns[:2])
        distance_BE = (query - positive) @ inputs.parameters["projection"]
        parabola = 3 * (inputs.parameters["number"] - 0.35).square().sum()
        loss = distance_BE.square().sum(1).mean() + parabola
        return LossOutput(loss, {"distance": distance_BE.detach().mean()})
