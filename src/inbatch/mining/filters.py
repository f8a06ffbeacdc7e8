"""Which candidates of a query may be its negatives.

A candidate is left out for the first of `REASONS` that holds, in this order; what is left is ranked by
score, and the ranks from `range_min` to ``range_max - 1`` are what negatives are chosen from. The margins,
the limits and their order are those of sentence-transformers' `mine_hard_negatives`; where a query has
several positives, a margin is measured from the one with the lowest score, the harder one. The guide's
margin is GIST's (Solatorio 2024, arXiv:2402.16829): a candidate that the guide finds as near as the
positive is taken for a match.

Shape letters: Q queries of a block, K candidates, P positives of the block's queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inbatch.data.ragged import RaggedValues

#: Why a candidate is left out.
REASONS = {
    "query": "its text is that of the query",
    "positive": "a positive of the query, in any row",
    "key": "of a row with the query's key",
    "absolute_margin": "not as far below the positive as mine.absolute_margin says",
    "relative_margin": "not as far below the positive as mine.relative_margin or mine.percentage says",
    "max_score": "above mine.max_score",
    "min_score": "below mine.min_score",
    "guide": "the guide takes it for a match (mine.guide_margin)",
    "range_min": "among the first, which mine.range_min leaves out",
    "range_max": "behind mine.range_max",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a candidate's score and rank must be; None for no limit.

    range_min, range_max: ranks from one to before the other, among the candidates that nothing else leaves
        out.
    max_score, min_score: of a negative.
    absolute_margin: a negative's score is at most the positive's less this.
    relative_margin: a negative's score is at most the positive's less this share of its magnitude.
    guide_margin: a negative's score by the guide is at most that of the positive less this.
    """

    range_min: int = 0
    range_max: int
    max_score: float | None = None
    min_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    guide_margin: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The best documents of a block of queries, and what is known of them.

    numbers: int64 [Q, K], documents, best first; -1 for none.
    scores: float32 [Q, K].
    guide: scores by the guide, float32 [Q, K]; None without one.
    positives: documents that are positives of each query, RaggedValues of Q rows and P values.
    positive_scores, positive_guide: their scores, float32 [P].
    same_text: document whose text is the query's, int64 [Q], -1 for none.
    same_key: of a row with the query's key, bool [Q, K].
    """

    numbers: np.ndarray
    scores: np.ndarray
    positives: RaggedValues
    positive_scores: np.ndarray
    same_text: np.ndarray
    same_key: np.ndarray
    guide: np.ndarray | None = None
    positive_guide: np.ndarray | None = None


def kept_candidates(found: Candidates, limits: Limits) -> tuple[np.ndarray, dict[str, int]]:
    """Candidates that may be negatives, bool [Q, K], and how many were left out for each reason."""
    kept = found.numbers >= 0
    counts = dict.fromkeys(REASONS, 0)
    for reason, out in _left_out(found, limits).items():
        counts[reason] = int((kept & out).sum())
        kept &= ~out
    rank = kept.cumsum(axis=1) - 1
    for reason, out in (
        ("range_min", rank < limits.range_min),
        ("range_max", rank >= limits.range_max),
    ):
        counts[reason] = int((kept & out).sum())
        kept &= ~out
    return kept, counts


def _left_out(found: Candidates, limits: Limits) -> dict[str, np.ndarray]:
    """Candidates that a reason leaves out, bool [Q, K], by the reason."""
    scores, positive = found.scores, _lowest(found.positive_scores, found.positives)[:, None]
    out = {
        "query": found.numbers == found.same_text[:, None],
        "positive": is_among(found.numbers, found.positives),
        "key": found.same_key,
    }
    if limits.absolute_margin is not None:
        out["absolute_margin"] = scores + np.float32(limits.absolute_margin) > positive
    if limits.relative_margin is not None:
        # Not ``positive * (1 - margin)``, which would be above a positive whose score is negative.
        ceiling = positive - np.abs(positive) * np.float32(limits.relative_margin)
        out["relative_margin"] = scores > ceiling
    if limits.max_score is not None:
        out["max_score"] = scores > np.float32(limits.max_score)
    if limits.min_score is not None:
        out["min_score"] = scores < np.float32(limits.min_score)
    if limits.guide_margin is not None:
        assert found.guide is not None
        assert found.positive_guide is not None
        ceiling = _lowest(found.positive_guide, found.positives)[:, None]
        out["guide"] = found.guide + np.float32(limits.guide_margin) > ceiling
    return out


def is_among(numbers_QK: np.ndarray, of: RaggedValues) -> np.ndarray:
    """Whether each number is one of its row's values, bool [Q, K]; -1 is none."""
    there = numbers_QK >= 0
    out = np.zeros(numbers_QK.shape, dtype=bool)
    out[there] = pairs_among(np.nonzero(there)[0], numbers_QK[there], of)
    return out


def pairs_among(rows_n: np.ndarray, values_n: np.ndarray, of: RaggedValues) -> np.ndarray:
    """Whether each value is one of those of its row, which are ascending; bool [n]."""
    if not len(of.values) or not len(values_n):
        return np.zeros(len(rows_n), dtype=bool)
    size = int(max(values_n.max(), of.values.max())) + 1
    known = np.repeat(np.arange(of.num_rows), of.lengths) * size + of.values
    wanted = rows_n * size + values_n
    return np.asarray(known[np.searchsorted(known, wanted).clip(max=len(known) - 1)] == wanted)


def _lowest(scores_P: np.ndarray, of: RaggedValues) -> np.ndarray:
    """Lowest score among the positives of each query, float32 [Q]; each has one at least."""
    return np.asarray(np.minimum.reduceat(scores_P, of.offsets[:-1]))
