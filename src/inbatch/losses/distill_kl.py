"""A teacher's distribution over a row's own documents. Shape letters as in `own_candidates`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inbatch.losses.base import LossInput, LossOutput, Published
from inbatch.losses.checks import check_number
from inbatch.losses.own_candidates import OwnCandidatesLoss

_PUBLISHED = Published(
    "DistillKLDivLoss",
    bibtex="""@misc{lin2020distilling,
    title = {Distilling Dense Representations for Ranking using Tightly-Coupled Teachers},
    author = {Sheng-Chieh Lin and Jheng-Hong Yang and Jimmy Lin},
    year = {2020},
    eprint = {2010.11386},
    archivePrefix = {arXiv},
    primaryClass = {cs.IR}
}""",
)


@dataclass(frozen=True)
class DistillKL(OwnCandidatesLoss):
    """KL divergence of the student's distribution over each row's own documents from the teacher's.

    Mean over rows of ``sum_c p_c (log p_c - log q_c)``, c being the positives and negatives of the row, p the
    softmax of the teacher's scores over `teacher_temperature` and q that of the student's similarities with
    the query over `student_temperature`. Scores are those of the data, or with ``teacher="guide"`` the
    cosines of the guide's embeddings. A row with one document has 0.

    Equals sentence-transformers' DistillKLDivLoss over ``student_temperature ** 2``, by which that one is
    multiplied: at 0.05 by 1/400, which would turn it off beside another loss.
    Papers: Hinton et al. 2015, arXiv:1503.02531; Lin et al. 2020, arXiv:2010.11386.
    """

    student_temperature: float = 1.0
    teacher_temperature: float = 1.0

    min_columns_of_lists: ClassVar[int] = 2  # several positives make a distribution
    published: ClassVar[Published] = _PUBLISHED

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("student_temperature", self.student_temperature, above=0)
        check_number("teacher_temperature", self.teacher_temperature, above=0)

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Mean over the owned rows. Raises ConfigError without a teacher's scores or embeddings."""
        rows, student_N, teacher_N = self.scored(inputs)
        log_q_N = rows.log_softmax(student_N / self.student_temperature)
        log_p_N = rows.log_softmax(teacher_N / self.teacher_temperature)
        p_N = log_p_N.exp()
        loss = rows.sum_by_row(p_N * (log_p_N - log_q_N)).mean()
        entropy_B = -rows.sum_by_row(p_N * log_p_N)
        similarity_B = rows.mean_by_row(student_N.detach(), rows.is_positive)
        return LossOutput(
            loss,
            {"positive_similarity": similarity_B.mean(), "teacher_entropy": entropy_B.mean()},
        )
