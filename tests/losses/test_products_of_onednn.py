"""Losses where oneDNN computes the products, which come in memory of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from helpers.losses_oracle import leaves, random_columns
from helpers.ragged_batches import make_rows, union_input
from inbatch import losses
from inbatch.device import cpu_products
from inbatch.losses import Loss, LossInput

ROWS, DIM = 40, 24
GIST = losses.GIST(temperature=0.05, mask_duplicates=True)
HARD = losses.MultipleNegativesRanking(
    hardness_mode="all_negatives", hardness_strength=5.0, mask_duplicates=True
)
LOSSES: dict[str, Loss] = {
    "gist": GIST,
    "hardened": HARD,
    "teacher": losses.InBatchKL(),
    "both": losses.WeightedSum([losses.MultipleNegativesRanking(), losses.InBatchKL()]),
    "cut": losses.Matryoshka(HARD, dims=[24, 8]),
}


@pytest.fixture(autouse=True)
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(cpu_products, "_SMALLEST", 0)


def columns_of_some_alike() -> LossInput:
    columns = random_columns(3, ROWS, DIM)
    ids = [torch.arange(ROWS) + k * ROWS for k in range(3)]
    ids[1][5], ids[2][7] = ids[1][3], ids[1][9]
    guide = random_columns(3, ROWS, 10, seed=1)
    return LossInput(tuple(columns), slice(4, 30), None, tuple(guide), tuple(ids))


def update(loss: Loss, inputs: LossInput, dtype: torch.dtype) -> list[Tensor]:
    columns = leaves([column.to(dtype) for column in inputs.columns])
    assert inputs.guide is not None
    guide = tuple(column.to(dtype) for column in inputs.guide)
    value = loss(replace(inputs, columns=tuple(columns), guide=guide)).loss
    return [value.detach(), *torch.autograd.grad(value, columns)]


def assert_exact(loss: Loss, inputs: LossInput) -> None:
    wanted = update(loss, inputs, torch.float64)
    found = update(loss, inputs, torch.float32)
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).norm() / other.norm()) < 3e-6


@pytest.mark.parametrize("name", LOSSES)
def test_columns(name: str) -> None:
    assert_exact(LOSSES[name], columns_of_some_alike())


@pytest.mark.parametrize("loss", [GIST, HARD], ids=["gist", "hardened"])
def test_lists(loss: Loss) -> None:
    rows = make_rows(6)
    num_texts = sum(1 + len(p) + len(n) for _, p, n in rows)
    texts = [random_columns(1, num_texts, DIM, seed=seed)[0] for seed in (0, 1)]
    assert_exact(loss, union_input(rows, *texts))
