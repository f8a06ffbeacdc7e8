"""How many graphs are kept between the passes changes no bit of a gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import inbatch
from helpers.distributed import gloo, run
from helpers.keystone import LOSSES
from helpers.tiny import tiny_texts
from inbatch.encoder import build_encoder
from inbatch.guide import LiveGuide

ROWS = 24
# GiB: all, none, and some of the chunks, whose graphs are a few hundred KiB each.
BUDGETS = (None, 0.0, 6e-4, 1.5e-3, 1.0)


def gradients(
    rank: int, world_size: int, path: Path, keep_gib: float | None, options: dict[str, Any]
) -> list[dict[str, Tensor]]:
    """Gradients of two steps with dropout: the first one measures the budget, the second one uses it."""
    if world_size > 1:
        gloo()
    torch.manual_seed(0)
    encoder = build_encoder(str(path), max_length=16).train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    loss = LOSSES[options["loss"]]
    guide = LiveGuide(build_encoder(str(path), max_length=16)) if loss.needs_guide else None
    step = inbatch.ContrastiveStep(encoder, loss, guide=guide, keep_gib=keep_gib, seed=7)
    columns = {
        "query": tiny_texts(ROWS, seed=1),
        "positive": tiny_texts(ROWS, seed=2),
        "label": [float(n % 2) for n in range(ROWS)],
    }
    found = []
    for number in range(2):
        encoder.zero_grad()
        step(step.collate(columns, step=number, chunk_rows=5))
        found.append(
            {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}
        )
    return found


def _same(left: list[dict[str, Tensor]], right: list[dict[str, Tensor]]) -> bool:
    return all(
        a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
        for a, b in zip(left, right)
    )


@pytest.mark.parametrize("loss", ["multiple_negatives_ranking", "gist", "cosent"])
def test_on_one_process(tiny_bert: Path, loss: str) -> None:
    everything, *others = [gradients(0, 1, tiny_bert, keep, {"loss": loss}) for keep in BUDGETS]
    assert all(_same(everything, other) for other in others)
    assert not _same(everything[:1], everything[1:])  # another step draws other dropout


def test_on_two_ranks(tiny_bert: Path) -> None:
    options = {"loss": "multiple_negatives_ranking"}
    everything, *others = [
        run(gradients, 2, tiny_bert, keep, options) for keep in (None, 0.0, 6e-4)
    ]
    for other in others:
        assert all(_same(mine, theirs) for mine, theirs in zip(everything, other, strict=True))
