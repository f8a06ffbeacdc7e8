"""Losses that follow a teacher text by text or within a row: the peer, lists, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer import losses as peer
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div, normalize

from helpers.losses_oracle import GivenEmbeddings, assert_same, leaves, random_columns
from helpers.ragged_batches import Rows, make_rows, union_input
from inbatch.errors import ConfigError
from inbatch.losses import (
    DistillKL,
    EmbeddingCosine,
    EmbeddingMSE,
    Loss,
    LossInput,
    MarginMSE,
)

ROWS, DIM = 9, 6
LISTS: Rows = make_rows(8)


def result(loss: Loss, inputs: LossInput) -> Any:
    columns = leaves(inputs.columns)
    value = loss(replace(inputs, columns=tuple(columns))).loss
    return value.detach(), list(torch.autograd.grad(value, columns))


def of_peer(loss: Any, columns: Any, target: Tensor) -> Any:
    mine = leaves(columns)
    value = loss.compute_loss_from_embeddings(mine, target)
    return value.detach(), list(torch.autograd.grad(value, mine))


@pytest.mark.parametrize("num_columns", [3, 5])
def test_margins_and_divergence_equal_the_peer(num_columns: int) -> None:
    columns = random_columns(num_columns, ROWS, DIM)
    scores = random_columns(1, ROWS, num_columns - 1, seed=4)[0]
    inputs = LossInput(tuple(columns), slice(0, ROWS), scores=scores.flatten())
    margins = peer.MarginMSELoss(GivenEmbeddings("student"))
    assert_same(result(MarginMSE(), inputs), of_peer(margins, columns, scores))
    theirs = peer.DistillKLDivLoss(
        GivenEmbeddings("student"), student_temperature=0.3, teacher_temperature=0.7
    )
    value, gradients = result(DistillKL(student_temperature=0.3, teacher_temperature=0.7), inputs)
    squared = 0.3**2  # by which the peer multiplies
    found = value * squared, [gradient * squared for gradient in gradients]
    assert_same(found, of_peer(theirs, columns, scores))


@pytest.mark.parametrize(
    ("loss", "metric"),
    [(EmbeddingMSE(), "mse"), (EmbeddingCosine(), "cosine")],
    ids=["mse", "cosine"],
)
def test_embeddings_equal_the_peer(loss: Loss, metric: str) -> None:
    columns, guide = (random_columns(3, ROWS, DIM, seed=seed) for seed in (0, 1))
    inputs = LossInput(tuple(columns), slice(0, ROWS), guide=tuple(guide))
    theirs = peer.EmbedDistillLoss(GivenEmbeddings("student"), distance_metric=metric)
    assert_same(result(loss, inputs), of_peer(theirs, columns, guide))  # type: ignore[arg-type]
    if metric == "mse":
        model = peer.MSELoss(GivenEmbeddings("student"))
        assert_same(result(loss, inputs), of_peer(model, columns, guide))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [EmbeddingMSE, EmbeddingCosine], ids=["mse", "cosine"])
def test_projections_equal_the_peer(kind: type[EmbeddingMSE] | type[EmbeddingCosine]) -> None:
    columns, guide = random_columns(3, ROWS, DIM), random_columns(3, ROWS, 4, seed=1)
    loss = kind(projection=True)
    wanted = loss.parameters(dim=DIM, guide_dim=4)
    parameters = {
        name: torch.randn(shape, dtype=torch.float64).requires_grad_()
        for name, (shape, _, _) in wanted.items()
    }
    mine = leaves(columns)
    inputs = LossInput(tuple(mine), slice(0, ROWS), guide=tuple(guide), parameters=parameters)
    value = loss(inputs).loss
    theirs = peer.EmbedDistillLoss(
        GivenEmbeddings("student"), distance_metric="mse" if kind is EmbeddingMSE else "cosine"
    )
    theirs.projection = torch.nn.Linear(DIM, 4).double()
    with torch.no_grad():
        theirs.projection.weight.copy_(parameters["projection"])
        theirs.projection.bias.copy_(parameters["projection_bias"])
    reference = leaves(columns)
    expected = theirs.compute_loss_from_embeddings(reference, guide)
    trained = [*mine, *parameters.values()]
    assert_same(
        (value.detach(), list(torch.autograd.grad(value, trained))),
        (
            expected.detach(),
            list(torch.autograd.grad(expected, [*reference, *theirs.projection.parameters()])),
        ),
    )


def lists_input() -> LossInput:
    num_texts = sum(1 + len(p) + len(n) for _, p, n in LISTS)
    values, guide = (random_columns(1, num_texts, DIM, seed=seed)[0] for seed in (0, 1))
    inputs = union_input(LISTS, values, guide)
    assert inputs.scores is not None
    return replace(inputs, scores=inputs.scores.double())


def rows_of(inputs: LossInput, columns: list[Tensor]) -> Any:
    """Query, documents, scores, guide of both and positives of each row."""
    assert inputs.guide is not None
    assert inputs.scores is not None
    start = 0
    for i, (_, positives, negatives) in enumerate(LISTS):
        part = slice(start, start + len(positives) + len(negatives))
        start = part.stop
        theirs = (inputs.guide[0][i], inputs.guide[1][part])
        yield columns[0][i], columns[1][part], inputs.scores[part], theirs, len(positives)


def teacher_of(loss: Any, scores: Tensor, theirs: tuple[Tensor, Tensor]) -> Tensor:
    return scores if loss.teacher == "scores" else cosine_similarity(theirs[0][None], theirs[1])


def student_of(loss: Any, query: Tensor, documents: Tensor) -> Tensor:
    if loss.similarity == "dot":
        return documents @ query
    return normalize(documents, dim=1) @ normalize(query, dim=0)


@pytest.mark.parametrize("teacher", ["scores", "guide"])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_margins_of_lists_by_all_pairs(similarity: Any, teacher: Any) -> None:
    loss, inputs = MarginMSE(similarity=similarity, teacher=teacher), lists_input()
    columns, total = leaves(inputs.columns), torch.zeros((), dtype=torch.float64)
    for query, documents, scores, theirs, known in rows_of(inputs, columns):
        gap = student_of(loss, query, documents) - teacher_of(loss, scores, theirs)
        if known < len(gap):
            total = total + (gap[:known, None] - gap[known:]).square().mean()
    total = total / len(LISTS)
    wanted = total.detach(), list(torch.autograd.grad(total, columns))
    assert_same(result(loss, inputs), wanted, tolerance=1e-11)


@pytest.mark.parametrize("teacher", ["scores", "guide"])
def test_divergence_of_lists_row_by_row(teacher: Any) -> None:
    loss, inputs = DistillKL("cosine", teacher, 0.2, 0.5), lists_input()
    columns, total = leaves(inputs.columns), torch.zeros((), dtype=torch.float64)
    for query, documents, scores, theirs, _ in rows_of(inputs, columns):
        q = (student_of(loss, query, documents) / loss.student_temperature).log_softmax(0)
        p = (teacher_of(loss, scores, theirs) / loss.teacher_temperature).softmax(0)
        total = total + kl_div(q, p, reduction="sum")
    total = total / len(LISTS)
    wanted = total.detach(), list(torch.autograd.grad(total, columns))
    assert_same(result(loss, inputs), wanted, tolerance=1e-11)


@pytest.mark.parametrize("loss", [EmbeddingMSE(), EmbeddingCosine()], ids=["mse", "cosine"])
def test_embeddings_of_lists_row_by_row(loss: Any) -> None:
    inputs = lists_input()
    columns, total = leaves(inputs.columns), torch.zeros((), dtype=torch.float64)
    for query, documents, _, theirs, _ in rows_of(inputs, columns):
        student, guide = (
            torch.cat([query[None], documents]),
            torch.cat([theirs[0][None], theirs[1]]),
        )
        total = total + loss.distances(student, guide).mean()
    total = total / len(LISTS)
    wanted = total.detach(), list(torch.autograd.grad(total, columns))
    assert_same(result(loss, inputs), wanted, tolerance=1e-11)


def test_equal_margins_far_from_0_lose_no_digits_in_float32() -> None:
    columns = [torch.ones(2, 4), *(torch.full((2, 4), 1000.0) for _ in range(3))]
    scores = torch.tensor([[1.0, 2.0, 4.0]] * 2)
    inputs = LossInput(tuple(columns), slice(0, 2), scores=scores.flatten())
    value, _ = result(MarginMSE(), inputs)
    assert float(value) == pytest.approx((1 + 9) / 2, rel=1e-6)


@pytest.mark.parametrize("loss", [EmbeddingMSE(), EmbeddingCosine()], ids=["mse", "cosine"])
def test_other_dimensions_are_refused(loss: Loss) -> None:
    columns, guide = random_columns(2, 4, 6), random_columns(2, 4, 5)
    inputs = LossInput(tuple(columns), slice(0, 4), guide=tuple(guide))
    with pytest.raises(ConfigError, match="which have 5 dimensions, the encoder's 6"):
        loss(inputs)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="teacher"):
        MarginMSE(teacher="model")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="student_temperature"):
        DistillKL(student_temperature=0)
    columns = tuple(random_columns(2, 4, 3))
    with pytest.raises(ConfigError, match="takes at least 3 text columns"):
        MarginMSE()(LossInput(columns, slice(0, 4), scores=torch.zeros(4)))
