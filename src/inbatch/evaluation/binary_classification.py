"""Measures how well a threshold on the similarity separates matching pairs from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import numpy as np

from inbatch.errors import ConfigError
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
from inbatch.evaluation.metrics import (
    BINARY_KEYS,
    DISTANCES,
    average_precision,
    binary_metrics,
    pairwise_similarity,
    without_noise,
)
from inbatch.evaluation.rows import RowSource, pair_rows, read_labelled_pairs


@final
class BinaryClassificationEvaluator:
    """Classification of pairs by a threshold on their similarity.

    Keys ``{similarity}_{accuracy, accuracy_threshold, f1, f1_threshold, precision, recall, ap,
    mcc}``; with several similarities also ``max_{...}``. Thresholds of manhattan and euclidean are
    distances. The primary metric is the average precision.

    Args:
        path: rows with query, positive and label (0 or 1), see `rows.read_texts`.
        columns, limit: see `rows.read_texts`.
        name: prefix of the keys.
        similarity: cosine, dot, manhattan, euclidean; None for the model's own.
        role: whose prompt both texts get: "query", "document", or None for the default prompt.
        truncate_dim: keep the first dimensions of embeddings only.

    Raises:
        ConfigError: rows that cannot be read, labels other than 0 and 1, or not both of them; an
            unknown similarity.
    """

    description: ClassVar[str] = "Binary Classification"

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
        field = field_of(name, "binary")
        self.name, self.role = name, role
        self.follows_model = similarity is None
        self.similarity = parse_similarity(similarity, field=field)
        self.truncate_dim = check_truncate_dim(truncate_dim, field=field)
        self.first, self.second, self.labels = read_labelled_pairs(
            path, columns=columns, limit=limit, field=field
        )
        if wrong := sorted(set(np.unique(self.labels).tolist()) - {0.0, 1.0}):
            raise ConfigError(
                f"{field}.columns.label",
                f"names labels with the value {wrong[0]:g}, but only 0 (different) and 1 "
                "(matching) are allowed",
                "name another column",
            )
        self._scores: list[np.ndarray] = []  # of the last call, by similarity

    @property
    def primary_metric(self) -> str:
        """Full key of the average precision, the maximum if there are several similarities."""
        which = self.similarity[0] if len(self.similarity) == 1 else "max"
        return prefix_key(self.name, f"{which}_ap")

    def metric_names(self) -> tuple[str, ...]:
        """All full keys that a call returns."""
        return tuple(
            prefix_key(self.name, f"{which}_{key}")
            for which in with_summary(self.similarity)
            for key in BINARY_KEYS
        )

    def evaluated_rows(self) -> EvaluationRows:
        """The labelled pairs."""
        return pair_rows(self.first, self.second, self.labels)

    def sample(self) -> Sample | None:
        """The average precision as a function of pairs; NaN where all are of one label."""
        if not self._scores or not all(np.isfinite(scores).all() for scores in self._scores):
            return None
        return largest_of([self._precision_of(scores) for scores in self._scores])

    def _precision_of(self, scores_N: np.ndarray) -> Sample:
        def precision(places: np.ndarray) -> float:
            return average_precision(self.labels[places], scores_N[places])

        return Sample(len(self.labels), precision)

    def __call__(self, encode: Encode) -> dict[str, float]:
        """Embed the pairs and classify."""
        first_ND, second_ND = embed_distinct(
            encode, (self.first, self.second), role=self.role, truncate_dim=self.truncate_dim
        )
        metrics: dict[str, float] = {}
        self._scores = []
        for similarity in self.similarity:
            found_N = pairwise_similarity(first_ND, second_ND, similarity).numpy()
            scores_N = without_noise(found_N)
            self._scores.append(scores_N)
            for key, value in binary_metrics(self.labels, scores_N).items():
                is_distance = similarity in DISTANCES and key.endswith("_threshold")
                metrics[f"{similarity}_{key}"] = -value if is_distance else value
        if len(self.similarity) > 1:
            for key in BINARY_KEYS:
                metrics[f"max_{key}"] = largest(
                    metrics[f"{name}_{key}"] for name in self.similarity
                )
        return with_prefix(self.name, metrics)
