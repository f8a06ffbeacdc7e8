"""A teacher's distribution over the texts of the global batch as the target of the student's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from inbatch.losses.base import Loss, LossInput, LossOutput, Published
from inbatch.losses.checks import check_choice, check_inputs, check_number
from inbatch.losses.directions import Direction, check_directions, further_blocks
from inbatch.losses.softmax.panels import Block
from inbatch.losses.softmax.ragged_spec import DOCUMENTS, QUERIES
from inbatch.losses.softmax.soft_cross_entropy import soft_cross_entropy
from inbatch.losses.softmax.soft_gathered import SoftStats

_PUBLISHED = Published(
    None,
    bibtex="""@misc{hinton2015distilling,
    title = {Distilling the Knowledge in a Neural Network},
    author = {Geoffrey Hinton and Oriol Vinyals and Jeff Dean},
    year = {2015},
    eprint = {1503.02531},
    archivePrefix = {arXiv},
    primaryClass = {stat.ML}
}""",
    heading="Distillation",
)


@dataclass(frozen=True)
class InBatchKL(Loss):
    """KL divergence of the student's distribution over the global batch from the teacher's.

    The teacher is the guide. With its cosines t, the student's similarities s, and c the candidates of row i
    as `MultipleNegativesRanking` has them by `directions` (positives and all negatives of every row)::

        p_i = softmax_c(t_ic / teacher_temperature)
        q_i = softmax_c(s_ic / student_temperature)
        loss_i = sum_c p_ic (log p_ic - log q_ic)

    A text against itself, and with doc_to_doc against the documents of its own row, takes part in neither.
    No text is a positive or a negative here, so duplicates need no mask: teacher and student both have the
    copies. Rows with lists take the directions of queries alone.

    It is the plain divergence, not times ``student_temperature ** 2``: its gradient is as large as that of
    `MultipleNegativesRanking` at the same temperature. `WeightedSum` of both computes scores once where they
    agree in temperature, similarity and directions.
    Papers: Hinton et al. 2015, arXiv:1503.02531; over in-batch negatives: Lin et al. 2020, arXiv:2010.11386.
    """

    student_temperature: float = 0.05
    teacher_temperature: float = 0.05
    similarity: Literal["cosine", "dot"] = "cosine"  # of the student
    directions: Sequence[Direction] = ("query_to_doc",)

    needs_guide: ClassVar[bool] = True
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", tuple(self.directions))
        check_number("student_temperature", self.student_temperature, above=0)
        check_number("teacher_temperature", self.teacher_temperature, above=0)
        check_choice("similarity", self.similarity, ("cosine", "dot"))
        check_directions(self.directions)

    @property
    def ignores_lengths(self) -> bool:
        """True of cosines."""
        return self.similarity == "cosine"

    @property
    def takes_lists(self) -> bool:
        """True of the directions of queries, whose row is one softmax whatever positives it has."""
        return {"query_to_doc", "query_to_query"} >= set(self.directions)

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Mean over the owned rows. Raises ConfigError without guide embeddings of each column."""
        loss, stats = self.sweep(inputs)
        return LossOutput(loss, self.metrics(stats))

    def sweep(self, inputs: LossInput, *, share: float = 1.0) -> tuple[Tensor, SoftStats]:
        """The loss, or where `share` is less than 1 the weighted mean of it and of the positive's."""
        check_inputs(self, inputs)
        return soft_cross_entropy(
            inputs,
            self._blocks(inputs),
            temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
            share=share,
            normalize=self.similarity == "cosine",
        )

    def metrics(self, stats: SoftStats) -> dict[str, Tensor]:
        """Mean over rows of the similarity of the positive, and of its share of both distributions."""
        return {
            "positive_similarity": stats.own.mean() * self.student_temperature,
            "teacher_positive_similarity": stats.teacher_own.mean() * self.teacher_temperature,
            "positive_share": stats.own_share.mean(),
            "teacher_positive_share": stats.teacher_own_share.mean(),
        }

    def _blocks(self, inputs: LossInput) -> list[Block]:
        if inputs.documents is not None:
            forward = [Block(QUERIES, DOCUMENTS, "positive")]
            return [*forward, *further_blocks(self.directions, num_columns=2)]
        num_columns = len(inputs.columns)
        forward = [Block(0, k, "positive" if k == 1 else "plain") for k in range(1, num_columns)]
        return [*forward, *further_blocks(self.directions, num_columns)]
