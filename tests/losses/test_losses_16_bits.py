"""Embeddings of 16 bits, multiplied as they are as on a GPU, against float64 of the same values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_losses_streaming import BLOCKS, dense
from torch import Tensor
from torch.nn.functional import normalize

from helpers.half_products import matrix_units
from helpers.losses_oracle import leaves, random_columns
from inbatch.losses import (
    GIST,
    InBatchKL,
    Loss,
    LossInput,
    Matryoshka,
    MultipleNegativesRanking,
    WeightedSum,
)
from inbatch.losses.filters import guide_filter
from inbatch.losses.softmax.cross_entropy import streamed_cross_entropy
from inbatch.losses.softmax.panels import GuideFilter

ROWS, DIM = 90, 96
OWN = slice(20, 85)
HALVES = [torch.bfloat16, torch.float16]
TYPES = [*HALVES, torch.float32]  # float32 is split
EVERY_DIRECTION = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


@pytest.fixture(autouse=True)
def _as_on_a_gpu() -> Iterator[None]:
    with matrix_units():
        yield


def columns_of(dtype: torch.dtype, num: int = 3, dim: int = DIM, *, seed: int = 0) -> list[Tensor]:
    """Columns of one type whose rows are some thousandths to some thousands long."""
    lengths = 10 ** (torch.arange(ROWS) % 7 - 3.0)[:, None].double()
    if dtype == torch.float16:
        lengths = lengths.clamp(min=0.1)  # shorter ones are rounded before they come
    return [(c * lengths).to(dtype) for c in random_columns(num, ROWS, dim, noise=1.5, seed=seed)]


def example_guide(columns: list[Tensor]) -> GuideFilter:
    return guide_filter(columns, margin_strategy="absolute", margin=0.05)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


def said_of(dtype: torch.dtype) -> dict[str, Any]:
    """What a step says of embeddings that an encoder under autocast returns in a type."""
    return {"exact_in": None if dtype == torch.float32 else dtype, "mixed": True}


def eps(dtype: torch.dtype) -> float:
    """Of the type in which weights are."""
    return torch.finfo(torch.float16 if dtype == torch.float32 else dtype).eps


@pytest.mark.parametrize("dtype", TYPES)
def test_a_cosine_is_as_exact_as_one_of_float32(dtype: torch.dtype) -> None:
    columns = columns_of(dtype, 2)
    options: dict[str, Any] = {"rows": OWN, "temperature": 0.05, **said_of(dtype)}
    _, stats = streamed_cross_entropy(columns, BLOCKS["one"], **options)
    units = [normalize(column.double(), dim=1) for column in columns]
    cosines = units[0][OWN] @ units[1].T
    hardest = cosines.clone()
    hardest[torch.arange(len(hardest)), torch.arange(OWN.start, OWN.stop)] = -torch.inf
    error = (stats.positive.double() - cosines.diagonal(OWN.start)).abs().max()
    assert error < 3e-7
    assert (stats.hardest.double() - hardest.amax(1)).abs().max() < 3e-7


@pytest.mark.parametrize("temperature", [0.05, 0.01])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", BLOCKS)
def test_loss_gradient_and_mask_are_those_of_float64(
    name: str, dtype: torch.dtype, temperature: float
) -> None:
    stored = torch.float32 if dtype == torch.float32 else torch.float16
    columns, theirs = columns_of(dtype), columns_of(stored, dim=24, seed=7)
    options: dict[str, Any] = {"rows": OWN, "temperature": temperature}
    given = leaves([column.float() for column in columns])  # the leaf of the gradient cache
    value, stats = streamed_cross_entropy(
        given,
        BLOCKS[name],
        guide=example_guide(theirs),
        hardness_strength=3.0,
        **said_of(dtype),
        **options,
    )
    exact, guide = (
        leaves([c.double() for c in columns]),
        example_guide([c.double() for c in theirs]),
    )
    wanted = dense(exact, BLOCKS[name], strength=3.0, guide=guide, **options)
    grads, exact_grads = (
        torch.autograd.grad(v, x, allow_unused=True, materialize_grads=True)
        for v, x in ((value, given), (wanted, exact))
    )
    torch.testing.assert_close(value.double(), wanted, rtol=2e-6, atol=2e-6)
    assert stats.filtered > 0
    for column, grad, reference in zip(columns, grads, exact_grads):
        assert grad.dtype == torch.float32
        if reference.any():
            # By direction, since a short row has a long gradient. Rounding an entry of it costs as much.
            length = column.double().norm(dim=1, keepdim=True)
            error = relative_error(grad * length, reference * length)
            assert error < eps(dtype) / 2


@pytest.mark.parametrize("dtype", HALVES)
def test_columns_of_16_bits_and_float32_that_holds_them_are_the_same(dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"rows": OWN, "temperature": 0.05}
    low, full = leaves(columns_of(dtype)), leaves([c.float() for c in columns_of(dtype)])
    value, _ = streamed_cross_entropy(low, BLOCKS["gist"], **options)
    same, _ = streamed_cross_entropy(full, BLOCKS["gist"], exact_in=dtype, **options)
    assert torch.equal(value, same)
    for one, other in zip(torch.autograd.grad(value, low), torch.autograd.grad(same, full)):
        assert torch.equal(one, other.to(dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_dot_products(dtype: torch.dtype) -> None:
    columns = [column.to(dtype) for column in random_columns(3, ROWS, DIM)]
    options: dict[str, Any] = {"rows": OWN, "temperature": 20.0}
    mine, exact = leaves(columns), leaves([column.double() for column in columns])
    value, _ = streamed_cross_entropy(mine, BLOCKS["gist"], normalize=False, **options)
    wanted = dense(exact, BLOCKS["gist"], is_cosine=False, **options)
    torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=1e-6)
    pairs = zip(torch.autograd.grad(value, mine), torch.autograd.grad(wanted, exact))
    assert all(relative_error(*pair) < torch.finfo(dtype).eps for pair in pairs)


def test_float16_keeps_weights_of_a_millionth() -> None:
    """A negative that hardly counts, beside one that does: its gradient is one of 1e-6 of the other's."""
    query, near, far = torch.eye(8)[:3]
    half_way = (query + near).half()
    queries = torch.stack([query, -query]).half()
    documents = torch.stack([half_way, far.half()])
    negatives = torch.stack([half_way, -query.half()])
    columns = leaves([queries, documents, negatives])
    exact = leaves([column.detach().double() for column in columns])
    blocks, options = BLOCKS["hardened"][:2], {"rows": slice(0, 1), "temperature": 0.05}
    value, _ = streamed_cross_entropy(columns, blocks, **options)
    wanted = dense(exact, blocks, **options)
    scaled = torch.autograd.grad(value * 2**15, columns)[1][1].double() / 2**15
    reference = torch.autograd.grad(wanted, exact)[1][1]
    assert 0 < reference.norm() < 1e-5
    assert relative_error(scaled, reference) < 2e-3


def test_a_row_of_zeros_spoils_nothing() -> None:
    columns = columns_of(torch.float16)
    columns[1][30] = 0
    mine = leaves(columns)
    value, _ = streamed_cross_entropy(mine, BLOCKS["gist"], rows=OWN, temperature=0.05)
    grads = torch.autograd.grad(value, mine)
    others = torch.arange(ROWS) != 30
    assert value.isfinite()
    assert all(bool(grad[others].isfinite().all()) for grad in grads)


LOSSES: dict[str, Loss] = {
    "directions": MultipleNegativesRanking(directions=EVERY_DIRECTION, mask_duplicates=True),
    "two softmaxes": MultipleNegativesRanking(
        directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    ),
    "dot": MultipleNegativesRanking(similarity="dot", temperature=1e4),
    "gist": GIST(temperature=0.05, mask_duplicates=True),
    "distribution": InBatchKL(0.1, directions=EVERY_DIRECTION),
    "one sweep": WeightedSum([MultipleNegativesRanking(), InBatchKL()]),
    "matryoshka": Matryoshka(GIST(temperature=0.1), dims=(96, 64, 24)),
    "matryoshka of dots": Matryoshka(MultipleNegativesRanking(similarity="dot"), dims=(96, 24)),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str, dtype: torch.dtype) -> None:
    columns, theirs = columns_of(dtype), columns_of(torch.float16, dim=24, seed=7)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 2 * ROWS, (3, ROWS), generator=generator).unbind(0)
    given, exact = leaves([c.float() for c in columns]), leaves([c.double() for c in columns])
    inputs = LossInput(tuple(given), OWN, None, tuple(theirs), ids, **said_of(dtype))
    found = LOSSES[name](inputs)
    doubles = tuple(column.double() for column in theirs)
    wanted = LOSSES[name](
        replace(inputs, columns=tuple(exact), guide=doubles, exact_in=None, mixed=False)
    )
    torch.testing.assert_close(found.loss.double(), wanted.loss, rtol=1e-5, atol=1e-5)
    pairs = zip(torch.autograd.grad(found.loss, given), torch.autograd.grad(wanted.loss, exact))
    assert all(relative_error(*pair) < eps(dtype) for pair in pairs)
    assert found.metrics.keys() == wanted.metrics.keys()
    for key, value in found.metrics.items():
        torch.testing.assert_close(
            value.double(), wanted.metrics[key].double(), rtol=1e-5, atol=1e-5
        )
