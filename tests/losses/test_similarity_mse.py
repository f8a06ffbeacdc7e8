"""`SimilarityMSE` beside matrices of similarities, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from helpers.losses_oracle import ours, random_columns
from inbatch.errors import ConfigError
from inbatch.losses import LossInput, SimilarityMSE

ROWS = 23
OWNED = slice(5, 17)


def plain(loss: SimilarityMSE, columns: list[Tensor], guide: list[Tensor], rows: slice) -> Tensor:
    units, teacher = ([normalize(c, dim=1) for c in each] for each in (columns, guide))
    blocks = {
        "query_to_doc": [(0, k) for k in range(1, len(columns))],
        "query_to_query": [(0, 0)],
        "doc_to_doc": [(1, k) for k in range(1, len(columns))],
    }
    differences = [
        units[a][rows] @ units[c].T - teacher[a][rows] @ teacher[c].T
        for direction in loss.directions
        for a, c in blocks[direction]
    ]
    return torch.cat(differences, dim=1).square().mean()


@pytest.mark.parametrize("num_columns", [2, 4])
@pytest.mark.parametrize(
    "directions", [("query_to_doc",), ("doc_to_doc", "query_to_query"), None], ids=str
)
def test_value_and_gradient(num_columns: int, directions: tuple[str, ...] | None) -> None:
    loss = SimilarityMSE() if directions is None else SimilarityMSE(directions=directions)  # type: ignore[arg-type]
    columns = random_columns(num_columns, ROWS, 7)
    guide = random_columns(num_columns, ROWS, 9, seed=1)
    value, gradients = ours(loss, columns, guide=guide, rows=OWNED)
    leaves = [column.clone().requires_grad_() for column in columns]
    wanted = plain(loss, leaves, guide, OWNED)
    torch.testing.assert_close(value, wanted.detach(), rtol=1e-12, atol=0)
    expected = torch.autograd.grad(wanted, leaves, allow_unused=True)
    for found, want in zip(gradients, expected):
        want = torch.zeros_like(found) if want is None else want
        torch.testing.assert_close(found, want, rtol=0, atol=1e-13)


def test_panels_change_no_more_than_the_order_of_sums() -> None:
    columns, guide = random_columns(3, ROWS, 7), random_columns(3, ROWS, 9, seed=1)

    def value(halvings: int) -> Tensor:
        inputs = LossInput(tuple(columns), OWNED, guide=tuple(guide), panel_halvings=halvings)
        return SimilarityMSE()(inputs).loss

    torch.testing.assert_close(value(12), value(0), rtol=1e-13, atol=0)


def test_a_student_that_follows_its_teacher_keeps_its_digits_in_float32() -> None:
    guide = random_columns(2, 300, 32)
    near = [c + 1e-4 * n for c, n in zip(guide, random_columns(2, 300, 32, seed=5))]
    exact = plain(SimilarityMSE(), near, guide, slice(0, 300))
    value, _ = ours(
        SimilarityMSE(),
        [c.float() for c in near],
        guide=[c.float() for c in guide],
        rows=slice(0, 300),
    )
    assert exact < 1e-6, "so that differences are far below the similarities"
    torch.testing.assert_close(value.double(), exact, rtol=1e-3, atol=0)
    assert SimilarityMSE()(LossInput(tuple(guide), slice(0, 300), guide=tuple(guide))).loss < 1e-15


@pytest.mark.parametrize("directions", [(), ("query_to_doc",) * 2, ("doc_to_query",)], ids=str)
def test_other_directions_are_refused(directions: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="directions"):
        SimilarityMSE(directions=directions)  # type: ignore[arg-type]
