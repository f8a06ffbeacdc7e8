"""Losses of labelled pairs and of triplets against sentence-transformers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.losses_oracle import GivenEmbeddings, assert_same, ours, peer, random_columns, theirs
from inbatch.errors import ConfigError
from inbatch.losses import (
    AnglE,
    Contrastive,
    CoSENT,
    CosineSimilarity,
    LossInput,
    OnlineContrastive,
    Triplet,
)

MODEL = GivenEmbeddings("student")
SIAMESE = peer.SiameseDistanceMetric
TRIPLET = peer.TripletDistanceMetric
BINARY = torch.tensor([1.0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1])
GRADED = torch.tensor([0.2, 0.9, 0.2, 0.5, 1.0, 0.0, 0.5, 0.5, 0.3, 0.9, 0.1])


@pytest.mark.parametrize("labels", [BINARY, GRADED], ids=["binary", "graded"])
@pytest.mark.parametrize("size_average", [True, False])
@pytest.mark.parametrize(
    ("distance", "metric"),
    [
        ("cosine", SIAMESE.COSINE_DISTANCE),
        ("euclidean", SIAMESE.EUCLIDEAN),
        ("manhattan", SIAMESE.MANHATTAN),
    ],
)
@pytest.mark.filterwarnings("ignore:ContrastiveLoss expects binary labels")
def test_contrastive(distance: str, metric: object, size_average: bool, labels: Tensor) -> None:
    columns = random_columns(2, 11, 6)
    options = {"margin": 1.1, "size_average": size_average}
    reference = peer.ContrastiveLoss(MODEL, distance_metric=metric, **options)
    loss = Contrastive(distance=distance, **options)
    assert loss.scope == ("row" if size_average else "global")
    assert_same(ours(loss, columns, labels=labels), theirs(reference, columns, labels=labels))


def test_a_sum_is_the_global_one_on_every_rank() -> None:
    columns = random_columns(2, 11, 6)
    loss = Contrastive(size_average=False)
    whole = ours(loss, columns, labels=BINARY)
    assert_same(ours(loss, columns, labels=BINARY, rows=slice(3, 5)), whole)


def test_contrastive_of_equal_texts_has_finite_gradients() -> None:
    texts = random_columns(1, 4, 6)[0]
    for distance in ("cosine", "euclidean", "manhattan"):
        loss = Contrastive(distance=distance)
        _, grads = ours(loss, [texts, texts], labels=torch.tensor([1.0, 0, 1, 0]))
        assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize(
    "labels",
    [BINARY, torch.zeros(11), torch.ones(11), torch.full((11,), 0.5), 2 * BINARY],
    ids=["mixed", "negatives", "positives", "neither", "other"],
)
@pytest.mark.parametrize(
    ("distance", "metric"), [("cosine", SIAMESE.COSINE_DISTANCE), ("manhattan", SIAMESE.MANHATTAN)]
)
@pytest.mark.filterwarnings("ignore:OnlineContrastiveLoss expects binary labels")
def test_online_contrastive(distance: str, metric: object, labels: Tensor) -> None:
    columns = random_columns(2, 11, 6)
    margin = 0.9 if distance == "cosine" else 7.0
    reference = peer.OnlineContrastiveLoss(MODEL, distance_metric=metric, margin=margin)
    loss = OnlineContrastive(distance=distance, margin=margin)
    assert_same(ours(loss, columns, labels=labels), theirs(reference, columns, labels=labels))


def test_online_contrastive_compares_strictly() -> None:
    """Positives as far as the nearest negative; negatives as near as the farthest positive."""
    first, second = random_columns(2, 4, 6)
    columns = [first.repeat_interleave(2, 0), second.repeat_interleave(2, 0)]
    for labels in (torch.tensor([1.0, 0] * 4), torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0])):
        reference = peer.OnlineContrastiveLoss(MODEL, margin=3.0)
        loss = OnlineContrastive(margin=3.0)
        assert_same(ours(loss, columns, labels=labels), theirs(reference, columns, labels=labels))


def test_cosine_similarity() -> None:
    columns = random_columns(2, 11, 6)
    reference = peer.CosineSimilarityLoss(MODEL)
    mine = ours(CosineSimilarity(), columns, labels=GRADED)
    # The peer's labels are float32 values in a float64 difference, as ours.
    assert_same(mine, theirs(reference, columns, labels=GRADED))


@pytest.mark.parametrize("labels", [GRADED, BINARY, torch.ones(11), torch.arange(11.0)])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_cosent(labels: Tensor, temperature: float) -> None:
    columns = random_columns(2, 11, 6)
    reference = peer.CoSENTLoss(MODEL, scale=1 / temperature)
    loss = CoSENT(temperature=temperature)
    mine = ours(loss, columns, labels=labels)
    assert_same(mine, theirs(reference, columns, labels=labels))
    assert all(grad.isfinite().all() for grad in mine[1])


def test_cosent_equals_its_definition() -> None:
    first, second = random_columns(2, 11, 6)
    cosine = torch.cosine_similarity(first, second)
    differences = (cosine[:, None] - cosine[None, :]) / 0.05
    total = 1 + differences.exp()[GRADED[:, None] < GRADED[None, :]].sum()
    value, _ = ours(CoSENT(), [first, second], labels=GRADED)
    torch.testing.assert_close(value, total.log())


@pytest.mark.parametrize("dim", [6, 7])
@pytest.mark.parametrize(
    ("num_columns", "labels"), [(2, GRADED), (3, None), (5, None), (4, GRADED), (3, BINARY)]
)
def test_angle(num_columns: int, labels: Tensor | None, dim: int) -> None:
    columns = random_columns(num_columns, 11, dim)
    mine = ours(AnglE(), columns, labels=labels)
    assert_same(mine, theirs(peer.AnglELoss(MODEL), columns, labels=labels))


def test_angle_of_pairs_needs_labels() -> None:
    with pytest.raises(ConfigError, match="label"):
        ours(AnglE(), random_columns(2, 4, 6))


@pytest.mark.parametrize("margin", [5.0, 0.3])
@pytest.mark.parametrize(
    ("distance", "metric"),
    [
        ("cosine", TRIPLET.COSINE),
        ("euclidean", TRIPLET.EUCLIDEAN),
        ("manhattan", TRIPLET.MANHATTAN),
    ],
)
def test_triplet(distance: str, metric: object, margin: float) -> None:
    columns = random_columns(3, 11, 6)
    reference = peer.TripletLoss(MODEL, distance_metric=metric, triplet_margin=margin)
    loss = Triplet(distance=distance, margin=margin)
    assert_same(ours(loss, columns), theirs(reference, columns))


def test_distance_metrics_name_an_absent_label() -> None:
    inputs = LossInput(tuple(random_columns(2, 3, 4)), slice(0, 3), labels=torch.ones(3))
    metrics = Contrastive()(inputs).metrics
    assert metrics["negative_distance"].isnan()
    assert metrics["positive_distance"] > 0


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (Contrastive, {"distance": "dot"}),
        (OnlineContrastive, {"distance": "l2"}),
        (Triplet, {"margin": float("nan")}),
        (CoSENT, {"temperature": 0.0}),
        (AnglE, {"temperature": -0.1}),
    ],
)
def test_refused_options(loss: type, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        loss(**options)
