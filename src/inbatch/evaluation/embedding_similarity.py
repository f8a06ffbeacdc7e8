"""Correlates the similarity of pairs with their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import numpy as np

from inbatch.evaluation.base import (
    Encode,
    EvaluationRows,
    check_truncate_dim,
    embed_distinct,
    field_of,
    largest,
    parse_similarity,
    prefix_key,
    with_prefix,
    with_summary,
)
from inbatch.evaluation.bootstrap import Sample, largest_of
from inbatch.evaluation.metrics import correlations, pairwise_similarity
from inbatch.evaluation.rows import RowSource, pair_rows, read_labelled_pairs


@final
class EmbeddingSimilarityEvaluator:
    """Pearson's and Spearman's correlation of the similarity of pairs with their labels.

    Keys ``pearson_{similarity}`` and ``spearman_{similarity}``; with several similarities also
    ``pearson_max`` and ``spearman_max``. The primary metric is Spearman's.

    Args:
        path: rows with query, positive and label (any numbers), see `rows.read_texts`.
        columns, limit: see `rows.read_texts`.
        name: prefix of the keys.
        similarity: cosine, dot, manhattan (negated), euclidean (negated); None for the model's own.
        role: whose prompt both texts get: "query", "document", or None for the default prompt.
        truncate_dim: keep the first dimensions of embeddings only.

    Raises:
        ConfigError: rows that cannot be read, have no labels or only one value of them; an unknown
            similarity.
    """

    description: ClassVar[str] = "Semantic Similarity"

    def __init__(
        self,
        path: RowSource,
        *,
        columns: Mapping[str, object] | None = None,
        limit: int | None = None,
        name: str = "",
        similarity: str | Sequence[str] | None = None,
        role: str | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        field = field_of(name, "similarity")
        self.name, self.role = name, role
        self.follows_model = similarity is None
        self.similarity = parse_similarity(similarity, field=field)
        self.truncate_dim = check_truncate_dim(truncate_dim, field=field)
        self.first, self.second, self.labels = read_labelled_pairs(
            path, columns=columns, limit=limit, field=field
        )
        self._scores: list[np.ndarray] = []  # of the last call, by similarity

    @property
    def primary_metric(self) -> str:
        """Full key of Spearman's correlation, the maximum if there are several similarities."""
        which = self.similarity[0] if len(self.similarity) == 1 else "max"
        return prefix_key(self.name, f"spearman_{which}")

    def metric_names(self) -> tuple[str, ...]:
        """All full keys that a call returns."""
        return tuple(
            prefix_key(self.name, f"{key}_{which}")
            for which in with_summary(self.similarity)
            for key in ("pearson", "spearman")
        )

    def evaluated_rows(self) -> EvaluationRows:
        """The labelled pairs."""
        return pair_rows(self.first, self.second, self.labels)

    def sample(self) -> Sample | None:
        """Spearman's correlation as a function of pairs."""
        if not self._scores or not all(np.isfinite(scores).all() for scores in self._scores):
            return None
        return largest_of([self._correlation_of(scores) for scores in self._scores])

    def _correlation_of(self, scores_N: np.ndarray) -> Sample:
        def spearman(places: np.ndarray) -> float:
            return correlations(self.labels[places], scores_N[places])["spearman"]

        return Sample(len(self.labels), spearman)

    def __call__(self, encode: Encode) -> dict[str, float]:
        """Embed the pairs and correlate."""
        first_ND, second_ND = embed_distinct(
            encode, (self.first, self.second), role=self.role, truncate_dim=self.truncate_dim
        )
        metrics: dict[str, float] = {}
        self._scores = []
        for similarity in self.similarity:
            scores_N = pairwise_similarity(first_ND, second_ND, similarity).numpy()
            self._scores.append(scores_N)
            for key, value in correlations(self.labels, scores_N).items():
                metrics[f"{key}_{similarity}"] = value
        if len(self.similarity) > 1:
            for key in ("pearson", "spearman"):
                metrics[f"{key}_max"] = largest(
                    metrics[f"{key}_{name}"] for name in self.similarity
                )
        return with_prefix(self.name, metrics)
