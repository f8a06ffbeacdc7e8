"""Losses that bring each text's embedding to the guide's of the same text; a base class and what they share.

Shape letters: B rows this rank owns, n of their texts, D dimension, E the guide's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from inbatch.device.copies import to_device
from inbatch.losses.base import Loss, LossInput, LossOutput, LossParameter
from inbatch.losses.checks import check_inputs
from inbatch.losses.pairs import full_precision, pair_cosine

_WEIGHT, _BIAS = "projection", "projection_bias"


@dataclass(frozen=True)
class EmbeddingDistance(Loss):
    """Mean over rows of the mean over a row's texts of a distance to the guide's embedding of the text.

    projection: a linear map [D] -> [E] of the student's embeddings, trained with the encoder, comes before
        the distance, so that dimensions may differ. Checkpoints hold it; the model of a run does not.
    """

    projection: bool = False

    scope: ClassVar[Literal["row"]] = "row"
    needs_guide: ClassVar[bool] = True
    takes_lists: ClassVar[bool] = True

    @property
    def matches_guide(self) -> bool:
        """True without a projection."""
        return not self.projection

    def parameters(self, *, dim: int, guide_dim: int | None) -> Mapping[str, LossParameter]:
        """The projection, which begins as `torch.nn.Linear` does."""
        if not self.projection or guide_dim is None:
            return {}

        def fill(values: Tensor, draws: torch.Generator) -> None:
            values.uniform_(-(dim**-0.5), dim**-0.5, generator=draws)

        shapes = {_WEIGHT: (guide_dim, dim), _BIAS: (guide_dim,)}
        return {name: LossParameter(shape, fill) for name, shape in shapes.items()}

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Mean over the owned rows. Raises ConfigError without guide embeddings of as many dimensions."""
        check_inputs(self, inputs)
        assert inputs.guide is not None
        student_nD, guide_nE = (_owned(inputs, texts) for texts in (inputs.columns, inputs.guide))
        guide_nE = guide_nE.detach().to(student_nD.dtype)
        student_nE = student_nD
        if self.projection:
            weight, bias = (inputs.parameters[name].to(student_nD) for name in (_WEIGHT, _BIAS))
            student_nE = linear(student_nD, weight, bias)
        weight_n = _weights(inputs, len(student_nD))
        loss = (weight_n * self.distances(student_nE, guide_nE)).sum()
        cosine_n = pair_cosine(student_nE.detach(), guide_nE)
        return LossOutput(loss, {"guide_similarity": (weight_n * cosine_n).sum()})

    @abstractmethod
    def distances(self, student_nE: Tensor, guide_nE: Tensor) -> Tensor:
        """Distance of each text, [n]."""


def _owned(inputs: LossInput, texts: tuple[Tensor, ...]) -> Tensor:
    """Those of all texts of the owned rows, [n, D]: column after column, or queries and then documents."""
    parts = [part[inputs.rows] for part in texts]
    if inputs.documents is not None:
        first = inputs.documents.first
        parts = [parts[0], texts[1][first : first + int(inputs.documents.counts.sum())]]
    return full_precision(torch.cat(parts))


def _weights(inputs: LossInput, num_texts: int) -> Tensor:
    """Weight of each text in the mean over rows of means over their texts, [n]."""
    like = full_precision(inputs.columns[0][:1])
    if inputs.documents is None:
        return like.new_full((num_texts,), 1 / num_texts)
    documents, first = inputs.documents, inputs.documents.first
    num_rows = len(documents.counts)
    owner_N = documents.owner[first : first + num_texts - num_rows] - inputs.rows.start
    texts_B = to_device(torch.from_numpy(documents.counts + 1), like.device).to(like.dtype)
    return 1 / (num_rows * torch.cat([texts_B, texts_B[owner_N]]))
