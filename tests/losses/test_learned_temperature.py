"""The gradient of a learned temperature: against autograd, differences, and shares of ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.losses_oracle import GivenEmbeddings, assert_same, leaves, ours, peer, random_columns
from helpers.ragged_batches import make_rows, union_input
from inbatch.errors import ConfigError
from inbatch.losses import GIST, Loss, LossInput, Matryoshka, MultipleNegativesRanking

DIM = 8
FILTERED = "filtered_share"
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
LOSSES: dict[str, Loss] = {
    "all directions": MultipleNegativesRanking(temperature="learned", directions=DIRECTIONS),
    "per direction": MultipleNegativesRanking(
        temperature="learned",
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    ),
    "hardened": MultipleNegativesRanking(
        temperature="learned", hardness_mode="all_negatives", hardness_strength=5.0
    ),
    "dot": MultipleNegativesRanking(
        temperature="learned", similarity="dot", initial_temperature=1.0
    ),
    "own negatives": MultipleNegativesRanking(temperature="learned", negatives="own"),
    "gist": GIST(temperature="learned", margin=0.1),
    "masked": MultipleNegativesRanking(
        temperature="learned", directions=DIRECTIONS, mask_margin=-0.1
    ),
    "masked dot": MultipleNegativesRanking(
        temperature="learned",
        initial_temperature=1.0,
        similarity="dot",
        mask_margin=0.3,
        mask_margin_strategy="relative",
        hardness_mode="all_negatives",
        hardness_strength=2.0,
    ),
    "self-guided": GIST(temperature="learned", self_guided=True),
    "matryoshka": Matryoshka(MultipleNegativesRanking(temperature="learned"), dims=[8, 4]),
}
LISTS: dict[str, Loss] = {
    form: MultipleNegativesRanking(
        temperature="learned", directions=DIRECTIONS, positive_form=form, mask_duplicates=True
    )
    for form in ("each", "mean", "sum")
} | {
    "masked": MultipleNegativesRanking(
        temperature="learned", directions=DIRECTIONS, mask_margin=-0.1
    ),
    "self-guided": GIST(temperature="learned", self_guided=True),
}


def initial(loss: Loss) -> Tensor:
    ((_, (shape, fill, _)),) = loss.parameters(dim=DIM, guide_dim=5).items()
    value = torch.empty(shape, dtype=torch.float64)
    fill(value, torch.Generator())
    return value


def differentiate(loss: Loss, inputs: LossInput, log_scale: Tensor) -> tuple[Tensor, list[Tensor]]:
    columns, log_scale = leaves(inputs.columns), log_scale.clone().requires_grad_()
    inputs = replace(inputs, columns=tuple(columns), parameters={"log_scale": log_scale})
    value = loss(inputs).loss
    return value.detach(), list(torch.autograd.grad(value, [log_scale, *columns]))


def of_columns() -> LossInput:
    columns = tuple(random_columns(3, 11, DIM))
    return LossInput(columns, slice(0, 11), guide=tuple(random_columns(3, 11, 5, seed=3)))


def of_lists() -> LossInput:
    rows = make_rows(9)
    num = len(rows) + sum(len(p) + len(n) for _, p, n in rows)
    (values,) = random_columns(1, num, DIM)
    return union_input(rows, values, random_columns(1, num, 5, seed=3)[0])


def fixed(loss: Loss, temperature: float) -> Loss:
    if isinstance(loss, Matryoshka):
        return replace(loss, loss=fixed(loss.loss, temperature))
    return replace(loss, temperature=temperature, initial_temperature=None)  # type: ignore[call-arg]


def check(loss: Loss, inputs: LossInput) -> None:
    """Value and gradients of columns are those of the number, that of the scale is what differences say."""
    log_scale = initial(loss)
    value, (of_scale, *of_columns) = differentiate(loss, inputs, log_scale)
    at = [float((-log_scale + step).exp()) for step in (0.0, -1e-5, 1e-5)]
    columns = leaves(inputs.columns)
    plain = fixed(loss, at[0])(replace(inputs, columns=tuple(columns))).loss
    assert_same((value, of_columns), (plain.detach(), list(torch.autograd.grad(plain, columns))))
    cooler, warmer = (fixed(loss, each)(inputs).loss for each in at[1:])
    hardened = getattr(loss, "hardness_strength", 0.0)  # whose term depends on it only in the value
    if not hardened:
        torch.testing.assert_close(
            of_scale, ((cooler - warmer) / 2e-5).reshape(1), rtol=1e-7, atol=1e-9
        )


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_differences(name: str) -> None:
    check(LOSSES[name], of_columns())


@pytest.mark.parametrize("name", LISTS)
def test_gradient_of_lists_is_that_of_differences(name: str) -> None:
    check(LISTS[name], of_lists())


@pytest.mark.parametrize("name", ["masked", "self-guided"])
def test_a_mask_by_own_scores_is_that_of_scores(name: str) -> None:
    """Whatever the temperature, as many negatives are left out, and some are."""
    for losses, inputs in ((LOSSES, of_columns()), (LISTS, of_lists())):
        shares = {
            float(losses[name](replace(inputs, parameters={"log_scale": s})).metrics[FILTERED])
            for s in torch.tensor([[0.0], [2.0], [4.0]], dtype=torch.float64)
        }
        assert len(shares) == 1
        assert 0.05 < shares.pop() < 0.95


@pytest.mark.parametrize("name", LOSSES)
def test_average_over_ranks_is_that_of_the_global_batch(name: str) -> None:
    loss, inputs = LOSSES[name], of_columns()
    _, (whole, *_) = differentiate(loss, inputs, initial(loss))
    shares = []
    for start, stop in pairwise([0, 4, 8, 11]):
        part = replace(inputs, rows=slice(start, stop))
        shares.append(differentiate(loss, part, initial(loss))[1][0] * (stop - start) / 11)
    torch.testing.assert_close(sum(shares), whole, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("mode", ["in_batch_negatives", "hard_negatives", "all_negatives"])
def test_hardened_gradient_is_that_of_the_peer(mode: str) -> None:
    """Whose hardness term has no gradient, so that the scale counts in the scores alone."""
    options: dict[str, Any] = {"hardness_mode": mode, "hardness_strength": 5.0}
    loss = MultipleNegativesRanking(temperature="learned", **options)
    inputs = of_columns()
    _, (mine, *_) = differentiate(loss, inputs, initial(loss))
    scale = torch.tensor([20.0], dtype=torch.float64, requires_grad=True)
    reference = peer.MultipleNegativesRankingLoss(GivenEmbeddings("student"), **options)
    reference.scale = scale
    value = reference([{"student": column} for column in inputs.columns], None)
    (by_scale,) = torch.autograd.grad(value, scale)
    torch.testing.assert_close(mine, by_scale * 20, rtol=1e-9, atol=1e-12)


def test_gradient_in_float32() -> None:
    loss, inputs = LOSSES["all directions"], of_columns()
    _, (exact, *_) = differentiate(loss, inputs, initial(loss))
    low = replace(inputs, columns=tuple(c.float() for c in inputs.columns))
    _, (mine, *_) = differentiate(loss, low, initial(loss).float())
    torch.testing.assert_close(mine.double(), exact, rtol=1e-4, atol=1e-6)


def test_it_is_logged() -> None:
    for loss, inputs in ((LOSSES["gist"], of_columns()), (LISTS["each"], of_lists())):
        parameters = {"log_scale": initial(loss)}
        metrics = loss(replace(inputs, parameters=parameters)).metrics
        torch.testing.assert_close(float(metrics["temperature"]), 0.05)
    assert "temperature" not in MultipleNegativesRanking()(of_columns()).metrics


def test_columns_alone_get_the_gradient_of_the_number() -> None:
    columns = random_columns(2, 6, DIM)
    loss = MultipleNegativesRanking(temperature="learned")
    inputs = LossInput(tuple(leaves(columns)), slice(0, 6))
    value = loss(replace(inputs, parameters={"log_scale": initial(loss)})).loss
    mine = value.detach(), list(torch.autograd.grad(value, inputs.columns))
    assert_same(mine, ours(MultipleNegativesRanking(), columns))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_temperature": 0.1}, "initial_temperature=0.1 does nothing under"),
        ({"temperature": "warm"}, "temperature='warm' is not a number"),
        ({"temperature": "learned", "initial_temperature": 0.001}, "is below 0.01"),
        ({"temperature": "learned", "initial_temperature": -1.0}, "finite number above 0"),
    ],
)
@pytest.mark.parametrize("loss", [MultipleNegativesRanking, GIST])
def test_what_has_no_meaning_is_refused(
    loss: type[Loss], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        loss(**options)


def test_bound_is_a_scale_of_100() -> None:
    most = GIST(temperature="learned").parameters(dim=DIM, guide_dim=5)["log_scale"].most
    assert most is not None
    torch.testing.assert_close(math.exp(most), 100.0)
