"""Global orthogonal regularization against sentence-transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sentence_transformers.util import cos_sim, dot_score

from helpers.losses_oracle import GivenEmbeddings, assert_same, leaves, ours, peer, random_columns
from inbatch.errors import ConfigError
from inbatch.losses import GlobalOrthogonalRegularization

SIMILARITIES = {"cosine": cos_sim, "dot": dot_score}


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dim", [5, 30])  # fewer dimensions than rows, and more
@pytest.mark.parametrize(
    "weights", [{}, {"mean_weight": 0.0, "aggregation": "sum"}, {"second_moment_weight": 0.5}]
)
def test_value_and_gradient_are_the_peers(
    similarity: str, dim: int, weights: dict[str, Any]
) -> None:
    columns = random_columns(3, 11, dim)
    reference = peer.GlobalOrthogonalRegularizationLoss(
        GivenEmbeddings("student"), similarity_fct=SIMILARITIES[similarity], **weights
    )
    inputs = leaves(columns)
    value = sum(reference.compute_loss_from_embeddings(inputs).values())
    wanted = value.detach(), list(torch.autograd.grad(value, inputs))
    mine = ours(GlobalOrthogonalRegularization(similarity=similarity, **weights), columns)
    assert_same(mine, wanted, tolerance=1e-11)


def test_one_row_has_no_pair() -> None:
    value, (gradient,) = ours(GlobalOrthogonalRegularization(), random_columns(1, 1, 5))
    assert float(value) < 1e-30
    assert gradient.isfinite().all()


def test_nothing_to_weigh_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves nothing of the loss"):
        GlobalOrthogonalRegularization(mean_weight=0, second_moment_weight=0)
