"""Values and gradients of a loss: ours, and those of sentence-transformers as the peer.

The peer's model returns given embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sentence_transformers.sentence_transformer import losses as peer
from torch import Tensor, nn

from helpers.tiny import tiny_tokenizer
from inbatch.losses import Loss, LossInput

Result = tuple[Tensor, list[Tensor]]


class GivenEmbeddings(nn.Module):
    """Stands for a SentenceTransformer: its features carry the embeddings."""

    max_seq_length = 64

    def __init__(self, key: str, dim: int = 0) -> None:
        super().__init__()
        self.key, self.dim, self.tokenizer = key, dim, tiny_tokenizer()

    def __getitem__(self, index: int) -> nn.Module:
        return self

    def get_embedding_dimension(self) -> int:
        return self.dim

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features[self.key]}


def random_columns(
    num: int, rows: int, dim: int, *, seed: int = 0, noise: float = 1.0
) -> list[Tensor]:
    """Columns [rows, dim] in float64 whose rows share a direction, of various lengths."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    noises = torch.randn(num, rows, dim, generator=generator, dtype=torch.float64)
    lengths = 0.5 + torch.rand(num, rows, 1, generator=generator, dtype=torch.float64)
    return [(base + noise * n) * length for n, length in zip(noises, lengths)]


def leaves(columns: Sequence[Tensor]) -> list[Tensor]:
    return [column.clone().requires_grad_() for column in columns]


def ours(
    loss: Loss,
    columns: Sequence[Tensor],
    *,
    labels: Tensor | None = None,
    guide: Sequence[Tensor] | None = None,
    rows: slice | None = None,
) -> Result:
    columns = leaves(columns)
    rows = rows or slice(0, len(columns[0]))
    guide = None if guide is None else tuple(guide)
    value = loss(LossInput(tuple(columns), rows, labels=labels, guide=guide)).loss
    return value.detach(), list(torch.autograd.grad(value, columns))


def theirs(
    loss: nn.Module,
    columns: Sequence[Tensor],
    *,
    labels: Tensor | None = None,
    guide: Sequence[Tensor] | None = None,
) -> Result:
    columns = leaves(columns)
    features = [{"student": c, "guide": g} for c, g in zip(columns, guide or columns)]
    value = loss(features, labels)
    return value.detach(), list(torch.autograd.grad(value, columns))


def theirs_cached_gist(
    columns: Sequence[Tensor], guide: Sequence[Tensor], **options: object
) -> Result:
    """CachedGISTEmbedLoss, the one that takes any number of negatives, in mini-batches of 3."""
    columns = leaves(columns)
    models = GivenEmbeddings("student"), GivenEmbeddings("guide")
    loss = peer.CachedGISTEmbedLoss(*models, mini_batch_size=3, **options)
    value = loss.calculate_loss([[c] for c in columns], [[g] for g in guide])
    return value.detach(), list(torch.autograd.grad(value, columns))


def assert_same(actual: Result, expected: Result, *, tolerance: float = 1e-12) -> None:
    """Value and gradients agree, relative to the largest entry of each."""
    torch.testing.assert_close(actual[0], expected[0], rtol=tolerance, atol=tolerance)
    assert len(actual[1]) == len(expected[1])
    for mine, reference in zip(actual[1], expected[1]):
        scale = float(reference.abs().max())
        torch.testing.assert_close(mine, reference, rtol=0, atol=tolerance * (1 + scale))
