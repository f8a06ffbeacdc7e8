"""A loss of a user's own that reads the scores of a teacher: margins over the candidates of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch.nn.functional import cosine_similarity

from inbatch.losses.base import Loss, LossInput, LossOutput
from inbatch.losses.checks import check_inputs
from inbatch.losses.lists import as_lists


@dataclass(frozen=True)
class MarginMSE(Loss):
    """Mean over rows of mean over (positive p, negative n) of ``((s_p - t_p) - (s_n - t_n))^2``.

    s is the cosine with the query, t the score. A row without negatives has 0. Hofstaetter et al. 2020,
    arXiv:2010.02666.
    """

    scope: Literal["row", "candidates", "global"] = "row"

    takes_lists: ClassVar[bool] = True
    needs_scores: ClassVar[bool] = True

    def __call__(self, inputs: LossInput) -> LossOutput:
        """Of the owned rows."""
        check_inputs(self, inputs)
        inputs = as_lists(inputs)
        documents, scores = inputs.documents, inputs.scores
        assert documents is not None
        assert scores is not None
        owned = slice(documents.first, documents.first + int(documents.counts.sum()))
        queries, candidates = inputs.columns
        cosines_M = cosine_similarity(queries[documents.owner[owned]], candidates[owned])
        gaps_M = cosines_M - scores
        total = 0 * cosines_M.sum()
        rows = gaps_M.split(documents.counts.tolist())
        for gaps, known in zip(rows, documents.positives.tolist(), strict=True):
            if known < len(gaps):
                total = total + (gaps[:known, None] - gaps[known:]).square().mean()
        return LossOutput(total / len(rows), {})
