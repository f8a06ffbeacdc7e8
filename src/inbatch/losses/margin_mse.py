"""Margins between a row's own documents as a teacher has them. Shape letters as in `own_candidates`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from inbatch.losses.base import LossInput, LossOutput, Published
from inbatch.losses.own_candidates import OwnCandidatesLoss, OwnRows

_PUBLISHED = Published(
    "MarginMSELoss",
    bibtex="""@misc{hofstatter2020improving,
    title = {Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
        Distillation},
    author = {Sebastian Hofst{\\"a}tter and Sophia Althammer and Michael Schr{\\"o}der and
        Mete Sertkan and Allan Hanbury},
    year = {2020},
    eprint = {2010.02666},
    archivePrefix = {arXiv},
    primaryClass = {cs.IR}
}""",
)


@dataclass(frozen=True)
class MarginMSE(OwnCandidatesLoss):
    """Mean over rows of mean over (positive p, negative n) of ``((s_p - s_n) - (t_p - t_n))^2``.

    s is the student's similarity with the query, t the teacher's score: of the data, or with
    ``teacher="guide"`` the cosine of the guide's embeddings. A row without negatives has 0, and counts as a
    row.

    Equals sentence-transformers' MarginMSELoss, whose rows have one positive and equally many negatives.
    Paper: Hofstätter et al. 2020, arXiv:2010.02666.
    """

    published: ClassVar[Published] = _PUBLISHED

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Mean over the owned rows. Raises ConfigError without a teacher's scores or embeddings."""
        rows, student_N, teacher_N = self.scored(inputs)
        loss = _margin_mse(rows, student_N - teacher_N).mean()
        student_N = student_N.detach()
        return LossOutput(
            loss,
            {
                "positive_similarity": rows.mean_by_row(student_N, rows.is_positive).mean(),
                "margin": _margins(rows, student_N).mean(),
                "teacher_margin": _margins(rows, teacher_N).mean(),
            },
        )


def _margin_mse(rows: OwnRows, gap_N: Tensor) -> Tensor:
    """Mean over the pairs of each row of squared differences of gaps, [B].

    By moments, without any pair: the variances of both sides and the squared difference of their means.
    """
    total_B = _margins(rows, gap_N).square()
    for among_N in (rows.is_positive, ~rows.is_positive):
        mean_B = rows.mean_by_row(gap_N, among_N)
        total_B = total_B + rows.mean_by_row((gap_N - mean_B[rows.row]).square(), among_N)
    return total_B * _have_negatives(rows, gap_N)


def _margins(rows: OwnRows, values_N: Tensor) -> Tensor:
    """Mean of the positives less mean of the negatives of each row, [B]; 0 without negatives."""
    positive_B, negative_B = (
        rows.mean_by_row(values_N, among_N) for among_N in (rows.is_positive, ~rows.is_positive)
    )
    return (positive_B - negative_B) * _have_negatives(rows, values_N)


def _have_negatives(rows: OwnRows, like: Tensor) -> Tensor:
    """1 for rows with negatives, else 0, [B]."""
    return rows.sum_by_row((~rows.is_positive).to(like.dtype)).clamp_max(1)
