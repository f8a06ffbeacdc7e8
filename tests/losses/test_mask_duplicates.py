"""Known positives are no negatives: against a comparison of texts, pair by pair."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from helpers.losses_oracle import assert_same, leaves, random_columns
from inbatch.errors import ConfigError
from inbatch.losses import GIST, LossInput, Matryoshka, MultipleNegativesRanking
from inbatch.losses.base import Loss
from inbatch.losses.softmax import walk

# Rows 0 and 3 share a query, 1 and 3 a positive, 2's positive is 4's query, 5's negative is 0's positive,
# 6's negative is its own query. 7 shares nothing.
TEXTS = {
    0: ("q0", "p0", "n0"),
    1: ("q1", "p1", "n1"),
    2: ("q2", "p2", "n2"),
    3: ("q0", "p1", "n3"),
    4: ("p2", "p4", "n4"),
    5: ("q5", "p5", "p0"),
    6: ("q6", "p6", "q6"),
    7: ("q7", "p7", "n7"),
}
ROWS = len(TEXTS)
ALL: Any = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


def text_ids() -> tuple[Tensor, ...]:
    numbers = {text: i for i, text in enumerate({t for row in TEXTS.values() for t in row})}
    # Rows first, as a step gathers them, so that a column is not contiguous.
    return torch.tensor([[numbers[text] for text in row] for row in TEXTS.values()]).unbind(1)


def known(row: int, other: int, candidate: int) -> bool:
    """Whether a text of another row is a known positive of a row's query."""
    query, positive, _ = TEXTS[row]
    if candidate < 2:
        return row != other and bool({query, positive} & set(TEXTS[other][:2]))
    return TEXTS[other][candidate] in (query, positive)


def dense(columns: list[Tensor], blocks: list[tuple[int, int]], temperature: float) -> Tensor:
    """Mean cross-entropy; a block (a, b) scores texts of column a against those of column b."""
    units = [normalize(column, dim=1) for column in columns]
    losses = []
    for i in range(ROWS):
        logits, target = [], (units[0][i] @ units[1][i]) / temperature
        for a, b in blocks:
            for j in range(ROWS):
                itself = i == j and (a == b or (a, b) == (1, 2))
                if not itself and not known(i, j, b):
                    logits.append((units[a][i] @ units[b][j]) / temperature)
        losses.append(torch.stack(logits).logsumexp(0) - target)
    return torch.stack(losses).mean()


CASES: dict[str, tuple[Loss, list[tuple[int, int]], float]] = {
    "documents": (MultipleNegativesRanking(mask_duplicates=True), [(0, 1), (0, 2)], 0.05),
    "all directions": (
        MultipleNegativesRanking(mask_duplicates=True, directions=ALL),
        [(0, 1), (0, 2), (0, 0), (1, 0), (1, 1), (1, 2)],
        0.05,
    ),
    "gist": (GIST(mask_duplicates=True), [(0, 1), (0, 0), (1, 1), (0, 2)], 0.01),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("panel_rows", [3, 64])
def test_equals_the_comparison(name: str, panel_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, blocks, temperature = CASES[name]
    monkeypatch.setitem(walk.MIN_PANEL_ROWS, "cpu", 1)
    monkeypatch.setitem(walk.MAX_PANEL_ROWS, "cpu", panel_rows)
    columns = random_columns(3, ROWS, 6)
    mine, reference = leaves(columns), leaves(columns)
    # To this guide all texts are alike, so that all tie and it removes none.
    guide = tuple(torch.ones(ROWS, 2, dtype=torch.float64) for _ in range(3))
    inputs = LossInput(tuple(mine), slice(0, ROWS), None, guide, text_ids())
    value = loss(inputs).loss
    expected = dense(reference, blocks, temperature)
    assert_same(
        (value, list(torch.autograd.grad(value, mine))),
        (expected, list(torch.autograd.grad(expected, reference))),
    )
    plain = type(loss)(**{**vars(loss), "mask_duplicates": False})(inputs).loss
    assert abs(float((plain - value).detach())) > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_texts_that_all_differ_change_nothing(name: str) -> None:
    loss = CASES[name][0]
    columns = tuple(random_columns(3, ROWS, 6))
    ids = tuple(torch.arange(ROWS) + ROWS * c for c in range(3))
    inputs = LossInput(columns, slice(2, 7), None, columns, ids)
    plain = type(loss)(**{**vars(loss), "mask_duplicates": False})
    assert torch.equal(loss(inputs).loss, plain(inputs).loss)


def test_a_row_without_any_negative_left_costs_nothing() -> None:
    columns = leaves(random_columns(2, 4, 6))
    ids = tuple(torch.zeros(4, dtype=torch.int64) for _ in range(2))
    value = CASES["documents"][0](LossInput(tuple(columns), slice(0, 4), text_ids=ids)).loss
    assert float(value.detach()) == 0
    assert all(bool((g == 0).all()) for g in torch.autograd.grad(value, columns))


def test_ids_are_asked_for() -> None:
    loss = Matryoshka(MultipleNegativesRanking(mask_duplicates=True), dims=[4])
    assert loss.needs_text_ids
    assert not Matryoshka(MultipleNegativesRanking(), dims=[4]).needs_text_ids
    with pytest.raises(ConfigError, match="needs the text ids of all 2 columns"):
        loss(LossInput(tuple(random_columns(2, 4, 6)), slice(0, 4)))


@pytest.mark.parametrize("make", [MultipleNegativesRanking, GIST])
def test_rows_with_lists_are_masked_unless_the_user_says_otherwise(make: Any) -> None:
    assert not make().needs_text_ids
    for lists in (True, False):
        assert make().settled(lists=lists) == make(mask_duplicates=lists)
        wrapped = Matryoshka(make(), dims=[4, 2], weights=[1, 2]).settled(lists=lists)
        assert wrapped == Matryoshka(make(mask_duplicates=lists), dims=[4, 2], weights=[1, 2])
        for said in (True, False):
            assert make(mask_duplicates=said).settled(lists=lists) == make(mask_duplicates=said)
