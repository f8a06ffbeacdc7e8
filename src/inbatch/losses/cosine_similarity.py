"""Regression of cosines on labels. Shape letters: B rows this rank owns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_inputs
from inbatch.losses.pairs import full_precision, pair_cosine

_PUBLISHED = Published(
    "CosineSimilarityLoss",
)


@dataclass(frozen=True)
class CosineSimilarity(Loss):
    """Mean over the rows of ``(cos(x, y) - label)^2``, for labels in [-1, 1].

    Equals sentence-transformers' CosineSimilarityLoss with its default MSELoss and no
    transformation. Paper: Reimers and Gurevych 2019, Sentence-BERT, arXiv:1908.10084.
    """

    scope: ClassVar[Literal["row"]] = "row"
    needs_labels: ClassVar[bool] = True
    max_columns: ClassVar[int | None] = 2
    published: ClassVar[Published] = _PUBLISHED
    label_range: ClassVar[tuple[float, float]] = (-1, 1)

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Mean over the owned rows. Raises ConfigError unless pairs with labels."""
        check_inputs(self, inputs)
        assert inputs.labels is not None
        cosine_B = pair_cosine(inputs.columns[0][inputs.rows], inputs.columns[1][inputs.rows])
        loss = (cosine_B - full_precision(inputs.labels[inputs.rows])).square().mean()
        return LossOutput(loss, {"mean_similarity": cosine_B.detach().mean()})
