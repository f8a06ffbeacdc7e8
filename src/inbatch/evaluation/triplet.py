"""Measures how often the positive is closer to the query than the negative."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
from torch import Tensor

from inbatch.data.sources.columns import suggest
from inbatch.errors import ConfigError
from inbatch.evaluation.base import (
    Encode,
    EvaluationRows,
    Examples,
    check_truncate_dim,
    embed_distinct,
    field_of,
    largest,
    parse_similarity,
    prefix_key,
    with_prefix,
    with_summary,
)
from inbatch.evaluation.bootstrap import Sample, largest_of, mean_of
from inbatch.evaluation.metrics import SIMILARITIES, pairwise_similarity, triplet_hits
from inbatch.evaluation.rows import RowSource, check_columns, read_texts

EXAMPLES = 20


@final
class TripletEvaluator:
    """Share of triplets with similarity(query, positive) > similarity(query, negative) + margin.

    Keys ``{similarity}_accuracy``; with several similarities also ``max_accuracy``, which then is
    the primary metric. Queries are embedded in the role "query", the others in the role "document".

    Args:
        path: rows with query, positive and one negative, see `rows.read_texts`.
        columns, limit: see `rows.read_texts`.
        name: prefix of the keys.
        similarity: cosine, dot, manhattan (negated), euclidean (negated); None for the model's own.
        margin: one number, or numbers by similarity (0 where it is missing).
        truncate_dim: keep the first dimensions of embeddings only.

    Raises:
        ConfigError: rows that cannot be read or have not three text columns; an unknown similarity.
    """

    description: ClassVar[str] = "Triplet"

    def __init__(
        self,
        path: RowSource,
        *,
        columns: Mapping[str, object] | None = None,
        limit: int | None = None,
        name: str = "",
        similarity: str | Sequence[str] | None = None,
        margin: float | Mapping[str, float] = 0.0,
        truncate_dim: int | None = None,
    ) -> None:
        field = field_of(name, "triplet")
        self.name = name
        self.follows_model = similarity is None
        self.similarity = parse_similarity(similarity, field=field)
        self.margins = _margins(margin, field=field)
        self.truncate_dim = check_truncate_dim(truncate_dim, field=field)
        rows = read_texts(path, columns=columns, limit=limit, field=field)
        check_columns(rows, num=3, roles="query, positive and one negative", field=field)
        self.queries, self.positives, self.negatives = rows.texts
        self._first: list[Tensor] | None = None
        self._hits: list[np.ndarray | None] = []

    @property
    def primary_metric(self) -> str:
        """Full key of the accuracy, the maximum if there are several similarities."""
        which = self.similarity[0] if len(self.similarity) == 1 else "max"
        return prefix_key(self.name, f"{which}_accuracy")

    def metric_names(self) -> tuple[str, ...]:
        """All full keys that a call returns."""
        return tuple(
            prefix_key(self.name, f"{which}_accuracy") for which in with_summary(self.similarity)
        )

    def __call__(self, encode: Encode) -> dict[str, float]:
        """Embed the triplets and compare."""
        options: dict[str, Any] = {"truncate_dim": self.truncate_dim}
        (query_ND,) = embed_distinct(encode, (self.queries,), role="query", **options)
        positive_ND, negative_ND = embed_distinct(
            encode, (self.positives, self.negatives), role="document", **options
        )
        self._first = [
            pairwise_similarity(query_ND[:EXAMPLES], other_ND[:EXAMPLES], self.similarity[0])
            for other_ND in (positive_ND, negative_ND)
        ]
        self._hits = [
            triplet_hits(
                pairwise_similarity(query_ND, positive_ND, similarity),
                pairwise_similarity(query_ND, negative_ND, similarity),
                margin=self.margins[similarity],
            )
            for similarity in self.similarity
        ]
        metrics = {
            f"{similarity}_accuracy": math.nan if hits is None else float(hits.mean())
            for similarity, hits in zip(self.similarity, self._hits)
        }
        if len(metrics) > 1:
            metrics["max_accuracy"] = largest(metrics.values())
        return with_prefix(self.name, metrics)

    def sample(self) -> Sample | None:
        """The accuracy as a function of triplets."""
        hits = [each for each in self._hits if each is not None]
        return largest_of([mean_of(each) for each in hits]) if hits else None

    def evaluated_rows(self) -> EvaluationRows:
        """The triplets."""
        columns = {
            "query": self.queries,
            "positive": self.positives,
            "negative": self.negatives,
        }
        return EvaluationRows(len(self.queries), "evaluation samples", columns)

    def examples(self) -> Examples | None:
        """The first triplets with their scores, and whether the positive is closer by the margin."""
        if self._first is None or not all(bool(scores.isfinite().all()) for scores in self._first):
            return None
        margin = self.margins[self.similarity[0]]
        texts = zip(self.queries, self.positives, self.negatives)
        scores = zip(*(part.tolist() for part in self._first), strict=True)
        rows: list[tuple[str | float | bool, ...]] = [
            (*texts_of, near, far, near > far + margin)
            for texts_of, (near, far) in zip(texts, scores)
        ]
        columns = ("query", "positive", "negative", "positive_score", "negative_score", "right")
        return Examples(columns, rows)


def _margins(margin: float | Mapping[str, float], *, field: str) -> dict[str, float]:
    if not isinstance(margin, Mapping):
        return dict.fromkeys(SIMILARITIES, float(margin))
    for key in margin:
        if key not in SIMILARITIES:
            raise ConfigError(
                f"{field}.margin.{key}", "is not a similarity", suggest(key, SIMILARITIES)
            )
    return {key: float(margin.get(key, 0.0)) for key in SIMILARITIES}
