"""Matryoshka around other losses against sentence-transformers."""

from __future__ import annotations

import pytest
import torch

from helpers.losses_oracle import GivenEmbeddings, assert_same, ours, peer, random_columns, theirs
from inbatch.errors import ConfigError
from inbatch.losses import (
    GIST,
    Contrastive,
    CoSENT,
    LossInput,
    Matryoshka,
    MultipleNegativesRanking,
    Triplet,
)

STUDENT, GUIDE = GivenEmbeddings("student", dim=8), GivenEmbeddings("guide")
DIMS, WEIGHTS = [3, 8, 5], [0.5, 1.0, 2.0]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(
    ("loss", "reference", "num_columns"),
    [
        (MultipleNegativesRanking(), peer.MultipleNegativesRankingLoss(STUDENT), 4),
        (GIST(temperature=0.05), peer.GISTEmbedLoss(STUDENT, GUIDE, temperature=0.05), 3),
        (CoSENT(), peer.CoSENTLoss(STUDENT), 2),
        (Triplet(margin=0.4), peer.TripletLoss(STUDENT, triplet_margin=0.4), 3),
    ],
    ids=["mnrl", "gist", "cosent", "triplet"],
)
def test_equals_peer(loss, reference, num_columns: int, weights: list[float] | None) -> None:  # type: ignore[no-untyped-def]
    columns = random_columns(num_columns, 9, 8)
    extra = {"guide": random_columns(num_columns, 9, 5, seed=2) if loss.needs_guide else None}
    extra["labels"] = torch.linspace(0, 1, 9) if loss.needs_labels else None
    wrapped = peer.MatryoshkaLoss(STUDENT, reference, DIMS, weights)
    mine = ours(Matryoshka(loss, DIMS, weights), columns, **extra)
    assert_same(mine, theirs(wrapped, columns, **extra), tolerance=1e-11)


def test_behaves_like_the_inner_loss() -> None:
    for inner in (MultipleNegativesRanking(), GIST(), Contrastive(size_average=False), Triplet()):
        loss = Matryoshka(inner, [4])
        for name in (
            "scope",
            "needs_labels",
            "needs_guide",
            "needs_text_ids",
            "min_columns",
            "max_columns",
        ):
            assert getattr(loss, name) == getattr(inner, name)


def test_metrics_are_those_of_the_largest_dimension() -> None:
    columns = tuple(random_columns(2, 9, 8))
    inner = MultipleNegativesRanking()
    output = Matryoshka(inner, DIMS, WEIGHTS)(LossInput(columns, slice(0, 9)))
    whole = inner(LossInput(columns, slice(0, 9)))
    for name, value in whole.metrics.items():
        torch.testing.assert_close(output.metrics[name], value)
    parts = [output.metrics[f"loss_dim_{dim}"] * w for dim, w in zip(DIMS, WEIGHTS)]
    torch.testing.assert_close(sum(parts), output.loss)
    torch.testing.assert_close(output.metrics["loss_dim_8"], whole.loss)


@pytest.mark.parametrize(
    ("dims", "weights", "message"),
    [
        ([], None, "dims="),
        ([0, 4], None, "at least 1"),
        ([4, 4], None, "distinct"),
        ([4, 2], [1.0], "weights has 1 entries for 2 dims"),
        ([4], [float("inf")], "weights=inf"),
    ],
)
def test_refused_options(dims: list[int], weights: list[float] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Matryoshka(Triplet(), dims, weights)


def test_refuses_dimensions_that_the_embeddings_lack() -> None:
    with pytest.raises(ConfigError, match=r"loss\.dims=\[9, 4\] has 9 but embeddings have 8"):
        ours(Matryoshka(Triplet(), [9, 4]), random_columns(3, 4, 8))
