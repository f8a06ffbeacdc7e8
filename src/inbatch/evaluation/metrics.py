"""Embeddings and scores -> metrics; pure functions.

Shape letters: N pairs or documents, Q queries, K hits of a query, D dimension. All similarities
grow with likeness: distances are negated. A metric of scores that are not finite is NaN.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

DISTANCES = {"manhattan": 1.0, "euclidean": 2.0}  # order p of the norm of the difference
SIMILARITIES = ("cosine", "dot", *DISTANCES)
NOISE = 16 * float(np.finfo(np.float32).eps)  # of a float32 score, relative
BINARY_KEYS = (
    *("accuracy", "accuracy_threshold", "f1", "f1_threshold"),
    *("precision", "recall", "ap", "mcc"),
)


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Numbers of hits k at which each retrieval metric is taken."""

    accuracy: tuple[int, ...]
    precision_recall: tuple[int, ...]
    ndcg: tuple[int, ...]
    mrr: tuple[int, ...]
    map: tuple[int, ...]

    @property
    def largest(self) -> int:
        """Hits K that a search must return."""
        return max(k for ks in astuple(self) for k in ks)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of `query_metrics`, in its order."""
        places = (
            (("accuracy",), self.accuracy),
            (("precision", "recall"), self.precision_recall),
            (("ndcg",), self.ndcg),
            (("mrr",), self.mrr),
            (("map",), self.map),
        )
        return tuple(f"{name}@{k}" for names, ks in places for k in ks for name in names)


def pairwise_similarity(a_ND: Tensor, b_ND: Tensor, similarity: str) -> Tensor:
    """Similarity of row i of `a_ND` with row i of `b_ND`: [N]."""
    if similarity == "cosine":
        return (normalize(a_ND, dim=-1) * normalize(b_ND, dim=-1)).sum(dim=-1)
    if similarity == "dot":
        return (a_ND * b_ND).sum(dim=-1)
    if similarity == "manhattan":
        return -(a_ND - b_ND).abs().sum(dim=-1)
    return -torch.linalg.vector_norm(a_ND - b_ND, dim=-1)


def similarities(queries_QD: Tensor, documents_ND: Tensor, similarity: str) -> Tensor:
    """Similarity of each query with each document: [Q, N]."""
    if similarity in DISTANCES:
        return -torch.cdist(queries_QD, documents_ND, p=DISTANCES[similarity])
    if similarity == "cosine":
        queries_QD, documents_ND = normalize(queries_QD, dim=-1), normalize(documents_ND, dim=-1)
    return queries_QD @ documents_ND.T


def without_noise(scores_N: np.ndarray) -> np.ndarray:
    """The scores; all equal where they differ by what float32 rounds only, as cosines of equal texts do."""
    if np.isfinite(scores_N).all() and np.ptp(scores_N) <= NOISE * np.abs(scores_N).max():
        return np.full_like(scores_N, scores_N[0])
    return scores_N


def correlations(labels_N: np.ndarray, scores_N: np.ndarray) -> dict[str, float]:
    """Pearson's and Spearman's correlation: ``{pearson, spearman}``; NaN for constant scores."""
    from scipy import stats  # a second of every start

    labels_N, scores_N = labels_N.astype(np.float64), scores_N.astype(np.float64)
    scores_N = without_noise(scores_N)
    with warnings.catch_warnings():
        # A collapsed model gives constant scores; the NaN that results says so.
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        pearson, _ = stats.pearsonr(labels_N, scores_N)
        spearman, _ = stats.spearmanr(labels_N, scores_N)
    return {"pearson": float(pearson), "spearman": float(spearman)}


def triplet_hits(
    positive_N: Tensor, negative_N: Tensor, *, margin: float = 0.0
) -> np.ndarray | None:
    """Whether the positive scores higher than the negative by more than `margin`: bool [N].

    None where a score is not finite.
    """
    if not bool((positive_N.isfinite() & negative_N.isfinite()).all()):
        return None
    hits: np.ndarray = (positive_N > negative_N + margin).numpy()
    return hits


def binary_metrics(labels_N: np.ndarray, scores_N: np.ndarray) -> dict[str, float]:
    """Metrics of classifying pairs by a threshold on their similarity; keys BINARY_KEYS.

    Accuracy and F1 are those of their best thresholds; precision, recall and Matthews' correlation
    belong to the threshold of F1. A threshold lies midway between two neighbouring scores.

    Args:
        labels_N: 0 or 1, with at least one of each.
        scores_N: float32 similarities.
    """
    from sklearn.metrics import matthews_corrcoef  # a second of every start

    if not np.isfinite(scores_N).all():
        return dict.fromkeys(BINARY_KEYS, math.nan)
    order = np.argsort(-scores_N, kind="stable")
    ranked = scores_N[order]
    hits = np.cumsum(labels_N[order] == 1)
    # A threshold cannot part equal scores, so only the last pair of each group of them counts.
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits, taken = hits[ends], ends + 1
    positives, total = hits[-1], len(labels_N)

    accuracy = (hits + (total - positives) - (taken - hits)) / total
    best = int(np.argmax(accuracy))
    best_accuracy, cut = accuracy[best], _threshold(ranked, ends[best])
    none_similar = (total - positives) / total
    if none_similar >= best_accuracy:
        best_accuracy, cut = none_similar, np.nextafter(ranked[0], np.float32(np.inf))

    precision, recall = hits / taken, hits / positives
    f1 = 2 * precision * recall / np.where(hits > 0, precision + recall, 1.0)
    best = int(np.argmax(f1))
    f1_cut = _threshold(ranked, ends[best])
    values = (
        *(best_accuracy, cut, f1[best], f1_cut, precision[best], recall[best]),
        average_precision(labels_N, scores_N),
        matthews_corrcoef(labels_N, scores_N >= f1_cut),
    )
    return {key: float(value) for key, value in zip(BINARY_KEYS, values)}


def average_precision(labels_N: np.ndarray, scores_N: np.ndarray) -> float:
    """Precision at each positive pair, averaged; equal scores count at once, as in scikit-learn.

    NaN without a pair of label 1.
    """
    order = np.argsort(-scores_N, kind="stable")
    ranked = scores_N[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) + 1
    hits = np.cumsum(labels_N[order] == 1)[ends - 1]
    if not hits[-1]:
        return math.nan
    return float((np.diff(hits, prepend=0) * hits / ends).sum() / hits[-1])


def query_metrics(
    gains_QK: np.ndarray, *, ideal_QK: np.ndarray, num_relevant_Q: np.ndarray, cutoffs: Cutoffs
) -> dict[str, np.ndarray]:
    """Metrics of each query's ranked hits, float64 [Q] each, whose means are reported; keys `Cutoffs.keys`.

    accuracy@k: a relevant hit among the first k. precision@k, recall@k: relevant hits / k, /
    relevant documents. mrr@k: 1 / place of the first relevant hit. map@k: precision at each
    relevant hit, summed, / min(k, relevant documents). ndcg@k: sum of gain / log2(place + 1), / the
    same of the ideal ranking (linear gains; Järvelin and Kekäläinen 2002).

    Args:
        gains_QK: gain of each hit, 0 where it is not relevant; K at least `cutoffs.largest`.
        ideal_QK: largest gains of each query, in descending order; K at least the largest ndcg
            cutoff.
        num_relevant_Q: relevant documents of each query, at least 1.
        cutoffs: where to take each metric.
    """
    relevant_QK = gains_QK > 0
    hits_QK = np.cumsum(relevant_QK, axis=1)
    places_K = np.arange(1, gains_QK.shape[1] + 1)
    metrics: dict[str, np.ndarray] = {}
    for k in cutoffs.accuracy:
        metrics[f"accuracy@{k}"] = (hits_QK[:, k - 1] > 0).astype(float)
    for k in cutoffs.precision_recall:
        metrics[f"precision@{k}"] = hits_QK[:, k - 1] / k
        metrics[f"recall@{k}"] = hits_QK[:, k - 1] / num_relevant_Q
    for k in cutoffs.ndcg:
        discounts = 1 / np.log2(places_K[:k] + 1)
        dcg_Q = (gains_QK[:, :k] * discounts).sum(axis=1)
        metrics[f"ndcg@{k}"] = dcg_Q / (ideal_QK[:, :k] * discounts).sum(axis=1)
    for k in cutoffs.mrr:
        reciprocal_QK = relevant_QK[:, :k] / places_K[:k]
        metrics[f"mrr@{k}"] = reciprocal_QK.max(axis=1)
    for k in cutoffs.map:
        precision_QK = relevant_QK[:, :k] * hits_QK[:, :k] / places_K[:k]
        metrics[f"map@{k}"] = precision_QK.sum(axis=1) / np.minimum(k, num_relevant_Q)
    return metrics


def reranking_metrics(
    scores_N: np.ndarray, relevant_N: np.ndarray, *, k: int
) -> tuple[float, float, float]:
    """Average precision, reciprocal rank at k and nDCG at k of one query's documents.

    Equal scores: the average precision takes them at once and the nDCG gives each the mean of their gains, as
    scikit-learn's `average_precision_score` and `ndcg_score`; for the reciprocal rank those that are not
    relevant come first.

    Args:
        scores_N: finite similarities.
        relevant_N: bool, at least one of each.
        k: places that count.
    """
    order = np.argsort(-scores_N, kind="stable")
    ranked, relevant = scores_N[order], relevant_N[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) + 1  # of equal scores
    starts = np.concatenate([[0], ends[:-1]])
    hits = np.cumsum(relevant)[ends - 1]
    found = np.diff(hits, prepend=0)

    first = int(np.flatnonzero(found)[0])
    place = int(ends[first] - found[first] + 1)
    reciprocal = 1 / place if place <= k else 0.0

    discounts = 1 / np.log2(np.arange(len(ranked)) + 2)
    discounts[k:] = 0
    summed = np.concatenate([[0.0], np.cumsum(discounts)])
    gained = float((found / (ends - starts) * (summed[ends] - summed[starts])).sum())
    return average_precision(relevant_N, scores_N), reciprocal, gained / float(summed[hits[-1]])


def _threshold(ranked_N: np.ndarray, end: int) -> np.floating:
    """The cut after place `end` of descending scores."""
    if end == len(ranked_N) - 1:
        return ranked_N[end]
    middle = (ranked_N[end] + ranked_N[end + 1]) / 2
    # Between neighbouring floats the midpoint may round down onto the next group.
    return ranked_N[end] if middle == ranked_N[end + 1] else middle
