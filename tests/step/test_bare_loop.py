"""`ContrastiveStep` in a bare torch loop: one process and two ranks take the step of the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import inbatch
from helpers.distributed import gloo, run
from helpers.keystone import (
    LOSSES,
    LR,
    make_encoder,
    make_guide,
    make_source,
    reference,
    relative_error,
)
from helpers.tiny import tiny_texts
from inbatch.guide import LiveGuide

ROWS, STEPS = 11, 2  # does not divide over two ranks


def train(
    rank: int, world_size: int, path: Path, name: str, options: dict[str, Any]
) -> dict[str, Tensor]:
    """Parameters after a loop that uses nothing but torch and the step."""
    if world_size > 1:
        gloo()
    loss = LOSSES[name]
    encoder = make_encoder(path, torch.float64)
    guide = LiveGuide(make_guide(path)) if loss.needs_guide else None
    step = inbatch.ContrastiveStep(encoder, loss, guide=guide, **options)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=LR)
    source = make_source(loss, ROWS)
    texts, labels = source.read(list(range(ROWS)))
    columns: dict[str, Any] = dict(zip(source.columns, texts))
    if labels is not None:
        columns["label"] = labels.tolist()
    for number in range(STEPS):
        output = step(step.collate(columns, step=number, chunk_rows=4))
        optimizer.step()
        optimizer.zero_grad()
        assert output.loss.isfinite()
    return {n: p.detach().clone() for n, p in encoder.named_parameters()}


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("multiple_negatives_ranking", {}),
        ("multiple_negatives_ranking", {"keep_gib": 0}),
        ("multiple_negatives_ranking", {"gather": "ring", "keep_gib": 0}),
        ("gist", {"keep_gib": 0}),
        ("cosent", {}),
        ("triplet", {}),
    ],
)
def test_the_update_is_that_of_the_whole_batch(
    tiny_bert: Path, world_size: int, name: str, options: dict[str, Any]
) -> None:
    start = {n: p.detach() for n, p in make_encoder(tiny_bert, torch.float64).named_parameters()}
    wanted = reference(tiny_bert, LOSSES[name], ROWS, STEPS, torch.float64)
    if world_size == 1:
        found = [train(0, 1, tiny_bert, name, options)]
    else:
        found = run(train, 2, tiny_bert, name, options)
    for parameters in found:  # the ranks end with the same weights
        assert relative_error(parameters, wanted, start) < 1e-10


def test_accumulated_batches_are_averaged(tiny_bert: Path) -> None:
    encoder = make_encoder(tiny_bert, torch.float64)
    step = inbatch.ContrastiveStep(encoder, LOSSES["multiple_negatives_ranking"])
    batches = [
        step.collate({"query": tiny_texts(4, seed=seed), "positive": tiny_texts(4, seed=seed + 50)})
        for seed in (1, 2)
    ]
    gradients = []
    for batch in batches:
        step(batch)
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
        encoder.zero_grad()
    for position, batch in enumerate(batches):
        step(batch, position=position, size=2)
    found = [p.grad for p in encoder.parameters() if p.grad is not None]
    for grad, first, second in zip(found, *gradients, strict=True):
        torch.testing.assert_close(grad, (first + second) / 2, rtol=1e-10, atol=1e-14)


def test_lightning_is_not_imported() -> None:
    code = "import sys, inbatch; inbatch.ContrastiveStep; print('lightning' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"
