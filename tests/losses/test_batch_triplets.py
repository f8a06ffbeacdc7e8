"""Triplet losses of labelled texts against sentence-transformers, and against all triplets one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import batch_hard_triplet

from helpers.losses_oracle import GivenEmbeddings, assert_same, ours, peer, random_columns, theirs
from inbatch.errors import ConfigError
from inbatch.losses import (
    BatchAllTriplet,
    BatchHardSoftMarginTriplet,
    BatchHardTriplet,
    BatchSemiHardTriplet,
    LossInput,
    Matryoshka,
    anchors,
)

Distances = batch_hard_triplet.BatchHardTripletLossDistanceFunction
LOSSES = {
    "all": (BatchAllTriplet, peer.BatchAllTripletLoss),
    "hard": (BatchHardTriplet, peer.BatchHardTripletLoss),
    "semi-hard": (BatchSemiHardTriplet, peer.BatchSemiHardTripletLoss),
    "soft": (BatchHardSoftMarginTriplet, peer.BatchHardSoftMarginTripletLoss),
}
MARGINS = {"euclidean": 1.0, "cosine": 0.2}
LABELS = torch.tensor([3, 0, 1, 0, 3, 2, 2, 1, 0, 2, 3, 1, 1]).float()


def both(name: str, distance: str) -> tuple[Any, Any]:
    mine, reference = LOSSES[name]
    margin = {} if name == "soft" else {"margin": MARGINS[distance]}
    metric = getattr(Distances, f"{distance}_distance")
    return mine(distance=distance, **margin), reference(
        GivenEmbeddings("student"), distance_metric=metric, **margin
    )


@pytest.mark.parametrize("distance", MARGINS)
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_the_peers(
    name: str, distance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchors, "panel_rows", lambda *args, **options: 4)  # several panels
    columns = random_columns(1, len(LABELS), 7)
    mine, reference = both(name, distance)
    wanted = theirs(reference, columns, labels=LABELS)
    assert float(wanted[0]) > 0
    assert_same(ours(mine, columns, labels=LABELS), wanted, tolerance=1e-11)


@pytest.mark.parametrize("name", LOSSES)
def test_columns_are_texts_with_the_label_of_their_row(name: str) -> None:
    columns = random_columns(2, len(LABELS), 7)
    mine, _ = both(name, "cosine")
    value, of_columns = ours(mine, columns, labels=LABELS)
    one, (of_one,) = ours(mine, [torch.cat(columns)], labels=LABELS.repeat(2))
    assert_same((value, [torch.cat(of_columns)]), (one, [of_one]))


@pytest.mark.parametrize("name", LOSSES)
def test_texts_that_are_equal_have_no_gradient_between_them(name: str) -> None:
    (column,) = random_columns(1, 6, 7)
    column = torch.cat([column, column])
    value, (gradient,) = ours(
        both(name, "euclidean")[0], [column], labels=torch.arange(12).remainder(4).float()
    )
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("labels", [[0.0] * 6, list(range(6))])
@pytest.mark.parametrize("name", LOSSES)
def test_without_a_triplet_the_loss_is_0(name: str, labels: list[float]) -> None:
    value, (gradient,) = ours(
        both(name, "cosine")[0], random_columns(1, 6, 7), labels=torch.tensor(labels).float()
    )
    assert float(value) == 0
    assert not gradient.any()


def test_an_anchor_without_a_positive_counts_as_0() -> None:
    (column,) = random_columns(1, 5, 7)
    loss = BatchHardTriplet(distance="cosine", margin=0.2)
    labels = torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0])
    inputs = LossInput((column,), slice(0, 5), labels=labels)
    rows = [loss(replace(inputs, rows=slice(i, i + 1))).loss for i in range(5)]
    assert float(rows[4]) == 0
    torch.testing.assert_close(loss(inputs).loss, torch.stack(rows).mean())


def test_matryoshka_of_texts_by_label() -> None:
    (column,) = random_columns(1, len(LABELS), 8)
    inner = BatchHardTriplet(distance="cosine", margin=0.2)
    value, _ = ours(Matryoshka(inner, dims=[8, 4]), [column], labels=LABELS)
    parts = [ours(inner, [column[:, :dim]], labels=LABELS)[0] for dim in (8, 4)]
    torch.testing.assert_close(value, sum(parts))


def test_metrics() -> None:
    column = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    labels = torch.tensor([0.0, 0.0, 1.0, 1.0])
    loss = BatchHardTriplet(distance="cosine", margin=0.5)
    metrics = loss(LossInput((column,), slice(0, 4), labels=labels)).metrics
    assert float(metrics["positive_distance"]) == 1.5  # 1 and 2
    assert float(metrics["negative_distance"]) == 1.0  # 0, 2, 1, 1
    assert float(metrics["active_share"]) == 1.0


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="distance='manhattan' is not a valid choice"):
        BatchHardTriplet(distance="manhattan")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="margin=inf is not a finite number"):
        BatchAllTriplet(margin=float("inf"))
