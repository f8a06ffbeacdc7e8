"""Measures how well similarity ranks the candidates that each query brings.

Shape letters: Q queries, N documents, D dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import numpy as np
import torch

from inbatch.errors import ConfigError
from inbatch.evaluation.base import (
    Encode,
    EvaluationRows,
    check_truncate_dim,
    embed_distinct,
    field_of,
    parse_similarity,
    prefix_key,
    with_prefix,
)
from inbatch.evaluation.bootstrap import Sample, mean_of
from inbatch.evaluation.metrics import pairwise_similarity, reranking_metrics
from inbatch.evaluation.reranking_rows import read_candidates
from inbatch.evaluation.rows import RowSource

BLOCK_DOCUMENTS = 50_000  # embedded at a time


@final
class RerankingEvaluator:
    """Ranking of each query's own positives and negatives.

    Keys ``map``, ``mrr@{k}`` and ``ndcg@{k}``, as in sentence-transformers, which also leaves out queries
    without a positive or without a negative. The primary metric is the nDCG. Equal scores: see
    `metrics.reranking_metrics`. Queries are embedded in the role "query", the others in the role "document".

    Args:
        path: rows with a query, positives and negatives, in columns or lists; see `rows.read_texts`.
        columns: ``{query, positive, negatives}`` -> column names; None recognises common names.
        limit: the first rows only; None for all.
        name: prefix of the keys.
        similarity: cosine, dot, manhattan (negated) or euclidean (negated); None for the model's own.
        at_k: places that count for mrr and ndcg.
        truncate_dim: keep the first dimensions of embeddings only.

    Raises:
        ConfigError: rows that cannot be read or have no negatives; an unknown similarity, or several.
    """

    description: ClassVar[str] = "Reranking"

    def __init__(
        self,
        path: RowSource,
        *,
        columns: Mapping[str, object] | None = None,
        limit: int | None = None,
        name: str = "",
        similarity: str | None = None,
        at_k: int = 10,
        truncate_dim: int | None = None,
    ) -> None:
        field = field_of(name, "reranking")
        self.name = name
        self.follows_model = similarity is None
        self.similarity = parse_similarity(similarity, field=field)
        self.truncate_dim = check_truncate_dim(truncate_dim, field=field)
        if at_k < 1:
            raise ConfigError(f"{field}.at_k", "is below 1", "set at least 1", value=at_k)
        self.at_k = at_k
        self.data = read_candidates(path, columns=columns, limit=limit, field=field)
        self._gained: np.ndarray | None = None  # [Q], of the last call

    @property
    def primary_metric(self) -> str:
        """Full key of the nDCG."""
        return prefix_key(self.name, f"ndcg@{self.at_k}")

    def metric_names(self) -> tuple[str, ...]:
        """All full keys that a call returns."""
        return tuple(prefix_key(self.name, key) for key in self._keys)

    @property
    def _keys(self) -> tuple[str, ...]:
        return "map", f"mrr@{self.at_k}", f"ndcg@{self.at_k}"

    def __call__(self, encode: Encode) -> dict[str, float]:
        """Embed queries and candidates, and rank."""
        options: dict[str, Any] = {"truncate_dim": self.truncate_dim}
        own: dict[str, Any] = {"role": "query", "prompt": self.data.query_prompt}
        (queries_QD,) = embed_distinct(encode, (self.data.queries,), **own, **options)
        found: list[tuple[float, float, float]] = []
        for first, last in self.data.blocks(BLOCK_DOCUMENTS):
            rows = range(first, last)
            counts = torch.tensor([len(self.data.documents[row]) for row in rows])
            texts = [text for row in rows for text in self.data.documents[row]]
            (documents_ND,) = embed_distinct(encode, (texts,), role="document", **options)
            asked_ND = queries_QD[first:last].repeat_interleave(counts, dim=0)
            scores_N = pairwise_similarity(asked_ND, documents_ND, self.similarity[0])
            for row, scores in zip(rows, scores_N.split(counts.tolist())):
                found.append(self._judge(scores.numpy(), self.data.num_positives[row]))
        values = np.array(found)
        self._gained = values[:, 2] if np.isfinite(values).all() else None
        return with_prefix(self.name, dict(zip(self._keys, values.mean(axis=0).tolist())))

    def _judge(self, scores_N: np.ndarray, num_positives: int) -> tuple[float, float, float]:
        if not np.isfinite(scores_N).all():
            return math.nan, math.nan, math.nan
        relevant_N = np.arange(len(scores_N)) < num_positives
        return reranking_metrics(scores_N, relevant_N, k=self.at_k)

    def sample(self) -> Sample | None:
        """The nDCG as a function of queries."""
        return None if self._gained is None else mean_of(self._gained)

    def evaluated_rows(self) -> EvaluationRows:
        """Queries, each with its first candidate, which is relevant."""
        data = self.data
        total, positives = sum(map(len, data.documents)), sum(data.num_positives)
        columns: Mapping[str, Sequence[str]] = {
            "query": data.queries,
            "relevant document": [documents[0] for documents in data.documents],
        }
        contents = f"queries, {total:,} candidates, {positives:,} of them relevant"
        return EvaluationRows(len(data.queries), contents, columns, data.notes)
