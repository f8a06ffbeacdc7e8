"""Embeddings by text and role, for our evaluators and for those of sentence-transformers alike."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.util import cos_sim, dot_score, euclidean_sim, manhattan_sim
from torch import Tensor

ALL_FOUR = ["cosine", "dot", "manhattan", "euclidean"]
SCORE_FUNCTIONS = {
    "cosine": cos_sim,
    "dot": dot_score,
    "manhattan": manhattan_sim,
    "euclidean": euclidean_sim,
}


class Table:
    """Random embeddings that depend on the text and the role; records what is asked for.

    With `grid` they are small integers in few dimensions, so that many scores are equal.
    """

    def __init__(self, *, dim: int = 16, grid: bool = False) -> None:
        self.dim, self.grid = dim, grid
        self.calls: list[tuple[list[str], str | None]] = []

    def __call__(self, texts: Sequence[str], *, role: str | None) -> Tensor:
        self.calls.append((list(texts), role))
        return torch.stack([self.embed(text, role) for text in texts])

    def embed(self, text: str, role: str | None) -> Tensor:
        seed = zlib.crc32(f"{role}:{text}".encode())
        generator = torch.Generator().manual_seed(seed)
        if self.grid:
            return torch.randint(-1, 2, (self.dim,), generator=generator).float()
        shared = torch.randn(self.dim, generator=torch.Generator().manual_seed(len(text)))
        return shared + torch.randn(self.dim, generator=generator)


class OracleModel:
    """As much of a SentenceTransformer as its evaluators use."""

    similarity_fn_name = "cosine"
    similarity = staticmethod(cos_sim)

    def __init__(self, table: Table) -> None:
        self.table = table
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def encode(self, texts: Sequence[str], **options: Any) -> Any:
        return self._encode(texts, None, **options)

    def encode_query(self, texts: Sequence[str], **options: Any) -> Any:
        return self._encode(texts, "query", **options)

    def encode_document(self, texts: Sequence[str], **options: Any) -> Any:
        return self._encode(texts, "document", **options)

    def _encode(
        self,
        texts: Sequence[str],
        role: str | None,
        *,
        truncate_dim: int | None = None,
        **options: Any,
    ) -> Any:
        rows = torch.stack([self.table.embed(text, role) for text in texts])[:, :truncate_dim]
        return rows if options.get("convert_to_tensor") else rows.numpy()


def assert_same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """The same keys, and values within 1e-6."""
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=1e-6), key


def text_columns(num: int, count: int, *, seed: int = 0, vocabulary: int = 40) -> list[list[str]]:
    """`count` columns of `num` texts, some of them repeated."""
    rng = np.random.default_rng(seed)
    return [
        [f"text {'x' * (i % 7)} {i}" for i in rng.integers(0, vocabulary, num)]
        for _ in range(count)
    ]


def constant(value: float) -> Callable[..., Tensor]:
    """An encode that gives the same embedding for every text."""

    def encode(texts: Sequence[str], *, role: str | None) -> Tensor:
        return torch.full((len(texts), 4), value)

    return encode
