"""What a step under autocast hands to its loss: the encoder's 16 bits, in float32."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import inbatch
from helpers.half_products import matrix_units
from helpers.tiny import tiny_texts
from inbatch.encoder import build_encoder
from inbatch.guide import LiveGuide
from inbatch.losses import GIST, LossInput, MultipleNegativesRanking
from inbatch.losses.base import Loss, LossOutput

ROWS = 24
COLUMNS = {
    name: tiny_texts(ROWS, seed=k) for k, name in enumerate(("query", "positive", "negative"))
}


@dataclass(frozen=True)
class Watched(Loss):
    """Notes the inputs of another loss."""

    loss: Loss
    seen: list[LossInput] = field(default_factory=list)

    @property
    def needs_guide(self) -> bool:
        return self.loss.needs_guide

    def __call__(self, inputs: LossInput) -> LossOutput:
        self.seen.append(inputs)
        return self.loss(inputs)


def step_once(
    path: Path, loss: Loss, *, mixed: bool, **options: Any
) -> tuple[LossInput, Tensor, Tensor]:
    """Inputs and value of the loss, and the gradient of all parameters."""
    torch.manual_seed(0)  # for layers that are not saved
    encoder = build_encoder(str(path), **options).train()
    guide = LiveGuide(build_encoder(str(path))) if loss.needs_guide else None
    watched = Watched(loss)
    step = inbatch.ContrastiveStep(encoder, watched, guide=guide, keep_gib=0, seed=3)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        output = step(step.collate(COLUMNS, chunk_rows=10))
    (inputs,) = watched.seen
    gradients = [p.grad.flatten() for p in encoder.parameters() if p.grad is not None]
    return inputs, output.loss, torch.cat(gradients)


HEADS: dict[str, dict[str, Any]] = {
    "a norm in float32": {"normalize": True},
    "a product in 16 bits": {"dense": {"out_features": 16}, "normalize": False},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", [GIST(temperature=0.05), MultipleNegativesRanking()])
def test_a_step_says_how_exact_embeddings_are(tiny_bert: Path, loss: Loss, head: str) -> None:
    options = HEADS[head]
    with matrix_units():
        inputs, value, gradient = step_once(tiny_bert, loss, mixed=True, **options)
    assert inputs.mixed
    assert inputs.exact_in == (None if options["normalize"] else torch.bfloat16)
    for column in inputs.columns:
        assert column.dtype == torch.float32
        assert torch.equal(column, column.bfloat16().float()) == (inputs.exact_in is not None)
    # The same from products in float32: values of the same embeddings, and rounded gradients.
    _, same, wanted = step_once(tiny_bert, loss, mixed=True, **options)
    torch.testing.assert_close(value, same, rtol=1e-6, atol=1e-6)
    assert 0 < (gradient - wanted).norm() / wanted.norm() < torch.finfo(torch.bfloat16).eps
    full, *_ = step_once(tiny_bert, loss, mixed=False, **options)
    assert full.exact_in is None
    assert not full.mixed
