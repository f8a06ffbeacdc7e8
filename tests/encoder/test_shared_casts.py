"""Weights that are cast once for all chunks change no bit, whatever is kept or checkpointed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import inbatch
from helpers.keystone import LOSSES
from helpers.shortage import Shortage
from helpers.tiny import tiny_texts
from inbatch.encoder import Encoder, build_encoder
from inbatch.encoder.head import Dense
from inbatch.encoder.shared_casts import shared_casts
from inbatch.step import forwards

CPU = torch.device("cpu")


def gradients(
    path: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    keep_gib: float | None = 0.0,
    shortage: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """Of a step in four chunks with dropout."""
    torch.manual_seed(0)
    encoder = build_encoder(str(path), max_length=16, **options).train()
    encoder.head.append(Dense(32, 16))
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    layer = encoder.backbone.encoder.layer[0].output.dense  # type: ignore[union-attr]
    step = inbatch.ContrastiveStep(
        encoder, LOSSES["multiple_negatives_ranking"], keep_gib=keep_gib, seed=7
    )
    texts = {name: tiny_texts(16, seed=n) for n, name in enumerate(("query", "positive"))}
    batch = step.collate(texts, chunk_rows=8)
    if shortage is not None:
        Shortage(layer, **shortage)  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=dtype, cache_enabled=False):
        # As the second of two accumulated batches, a failed backward is done again in part.
        step(batch, position=1, size=2)
    return {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "options",
    [
        {"keep_gib": None},
        {"keep_gib": 0.0},
        {"keep_gib": 5e-4},
        {"gradient_checkpointing": True},
        {"shortage": {"backward": lambda number: number == 2}},
    ],
)
def test_gradients_are_those_of_casts_in_each_forward(
    tiny_bert: Path, options: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = gradients(tiny_bert, dtype=dtype, **options)
    monkeypatch.setattr(forwards, "shared_casts", lambda module, device: {})
    each = gradients(tiny_bert, dtype=dtype, keep_gib=options.get("keep_gib", 0.0))
    assert shared.keys() == each.keys()
    assert [name for name in each if not torch.equal(shared[name], each[name])] == []
    assert all(gradient.abs().sum() > 0 for name, gradient in each.items() if "weight" in name)


class _Casts(TorchDispatchMode):
    """Counts casts of whole weights."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.count = 0
        self._weights = {p.data_ptr() for p in encoder.parameters()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket is torch.ops.aten._to_copy:
            self.count += args[0].data_ptr() in self._weights
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("num_chunks", [1, 4])
def test_a_batch_casts_each_weight_once(tiny_bert: Path, num_chunks: int) -> None:
    encoder = build_encoder(str(tiny_bert)).train()
    step = inbatch.ContrastiveStep(encoder, LOSSES["multiple_negatives_ranking"], keep_gib=0)
    texts = {name: tiny_texts(16, seed=n) for n, name in enumerate(("query", "positive"))}
    batch = step.collate(texts, chunk_rows=32 // num_chunks)
    assert len(batch.chunks) == num_chunks
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        expected = len(shared_casts(encoder, CPU))
        with _Casts(encoder) as casts:
            step(batch)
    assert casts.count == expected == 2 * 6 * 2  # two layers of six matrices, and biases


def test_only_autocast_casts(tiny_bert: Path) -> None:
    encoder = build_encoder(str(tiny_bert))
    assert shared_casts(encoder, CPU) == {}
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        casts = shared_casts(encoder, CPU)
        assert {tensor.dtype for tensor in casts.values()} == {torch.bfloat16}
        assert all(tensor.requires_grad for tensor in casts.values())
        assert shared_casts(encoder.double(), CPU) == {}
