"""The candidates of each row alone: its own positives and negatives, without any other row's.

Linear in their number, however many a row has. Shape letters: B rows this rank owns, N documents of these, D
dimension, E the guide's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from inbatch.device.copies import to_device
from inbatch.losses.base import Loss, LossInput
from inbatch.losses.checks import check_choice, check_inputs
from inbatch.losses.lists import as_lists
from inbatch.losses.pairs import pair_cosine, pair_dot

Similarity = Literal["cosine", "dot"]
SIMILARITIES = ("cosine", "dot")
Teacher = Literal["scores", "guide"]
TEACHERS = ("scores", "guide")


class OwnRows(NamedTuple):
    """Which rows some documents belong to; these are sorted by rows."""

    row: Tensor  # int64 [N], from the first owned row on
    starts: Tensor  # int64 [B], first document of each row
    is_positive: Tensor  # bool [N]

    def sum_by_row(self, values_N: Tensor) -> Tensor:
        """Sums over the documents of each row, [B]; always in the same order."""
        places_N = torch.arange(len(values_N), device=values_N.device)
        return embedding_bag(places_N, values_N[:, None], self.starts, mode="sum")[:, 0]

    def mean_by_row(self, values_N: Tensor, among_N: Tensor) -> Tensor:
        """Means over those documents of each row that a mask names, [B]; 0 where there are none."""
        kept_N = torch.where(among_N, values_N, 0)
        return self.sum_by_row(kept_N) / self.sum_by_row(among_N.to(values_N.dtype)).clamp_min(1)

    def log_softmax(self, values_N: Tensor) -> Tensor:
        """Log of the softmax over the documents of each row, [N]."""
        lowest_B = values_N.new_full(self.starts.shape, -torch.inf)
        peak_B = lowest_B.scatter_reduce(0, self.row, values_N.detach(), "amax")
        lower_N = values_N - peak_B[self.row]
        return lower_N - self.sum_by_row(lower_N.exp()).log()[self.row]


class _Candidates(NamedTuple):
    """Owned rows with their documents."""

    rows: OwnRows
    queries: Tensor  # [B, D]
    documents: Tensor  # [N, D]
    guide: tuple[Tensor, Tensor] | None  # the same, [B, E] and [N, E]


def _own_candidates(inputs: LossInput) -> _Candidates:
    """The owned rows of a loss, in columns or with lists."""
    rows = inputs.rows
    if inputs.documents is None:  # before they are put together, so that no others are copied
        some = [
            None if texts is None else tuple(column[rows] for column in texts)
            for texts in (inputs.columns, inputs.guide)
        ]
        assert some[0] is not None
        inputs = replace(inputs, columns=some[0], guide=some[1], text_ids=None)
        inputs = as_lists(replace(inputs, rows=slice(0, rows.stop - rows.start)))
    documents = inputs.documents
    assert documents is not None
    counts_B = documents.counts
    owned = slice(documents.first, documents.first + int(counts_B.sum()))
    starts_B = torch.from_numpy(np.cumsum(counts_B) - counts_B)
    device = inputs.columns[0].device
    return _Candidates(
        OwnRows(
            documents.owner[owned] - inputs.rows.start,
            to_device(starts_B, device),
            documents.is_positive[owned],
        ),
        inputs.columns[0][inputs.rows],
        inputs.columns[1][owned],
        None if inputs.guide is None else (inputs.guide[0][inputs.rows], inputs.guide[1][owned]),
    )


@dataclass(frozen=True)
class OwnCandidatesLoss(Loss):
    """Base class of losses that compare a student with a teacher on each row's own documents.

    similarity: of the student's embeddings of query and document.
    teacher: whether its scores are those of the data, or the cosines of the guide's embeddings.
    """

    similarity: Similarity = "dot"
    teacher: Teacher = "scores"

    scope: ClassVar[Literal["row"]] = "row"
    takes_lists: ClassVar[bool] = True
    min_columns: ClassVar[int] = 3

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, SIMILARITIES)
        check_choice("teacher", self.teacher, TEACHERS)

    @property
    def ignores_lengths(self) -> bool:
        """True of cosines."""
        return self.similarity == "cosine"

    @property
    def needs_scores(self) -> bool:
        """True unless the guide is the teacher."""
        return self.teacher == "scores"

    @property
    def needs_guide(self) -> bool:
        """True if it is the teacher."""
        return self.teacher == "guide"

    def scored(self, inputs: LossInput) -> tuple[OwnRows, Tensor, Tensor]:
        """Owned rows, and the student's and the teacher's score of each of their documents, [N].

        Raises:
            ConfigError: there are too few columns, or no scores or embeddings of the teacher.
        """
        check_inputs(self, inputs)
        candidates = _own_candidates(inputs)
        rows, queries, documents = candidates.rows, candidates.queries, candidates.documents
        measure = pair_cosine if self.similarity == "cosine" else pair_dot
        student_N = measure(queries[rows.row], documents)
        if self.teacher == "scores":
            assert inputs.scores is not None
            return rows, student_N, inputs.scores.to(student_N.dtype)
        assert candidates.guide is not None
        queries, documents = (theirs.detach() for theirs in candidates.guide)
        return rows, student_N, pair_cosine(queries[rows.row], documents).to(student_N.dtype)
