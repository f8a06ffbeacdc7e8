"""Rows with lists on a CUDA device: the host waits for nothing, and the result is the CPU's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers.emulated_cuda.process import group, on_gpu
from helpers.keystone import quiet
from helpers.ragged_batches import collate_lists, make_rows
from inbatch.batch.transfer import pack
from inbatch.encoder import build_encoder
from inbatch.guide import LiveGuide
from inbatch.losses import GIST, MultipleNegativesRanking
from inbatch.losses.base import Loss
from inbatch.step.contrastive_step import ContrastiveStep

pytestmark = group

LOSSES: dict[str, Loss] = {
    "each": MultipleNegativesRanking(
        directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
        mask_duplicates=True,
        hardness_mode="all_negatives",
        hardness_strength=1.0,
    ),
    "sum": MultipleNegativesRanking(positive_form="sum", negatives="own"),
    "gist": GIST(temperature=0.05, mask_duplicates=True),
}


def gradients(path: Path, name: str, device: str) -> dict[str, Tensor]:
    """Of two steps, of which the second may not wait for the device."""
    quiet()
    encoder = build_encoder(str(path)).to(device)
    guide = LiveGuide(build_encoder(str(path)))
    step = ContrastiveStep(encoder, LOSSES[name], guide=guide, keep_gib=0)
    batch = collate_lists(make_rows(9), encoder.tokenizer, chunk_rows=8)
    for mode in ("default", "error"):
        encoder.zero_grad()
        on_device = pack(batch).open(device)
        if device == "cuda":
            torch.cuda.set_sync_debug_mode(mode)
        step(on_device)
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    return {n: p.grad.cpu() for n, p in encoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_waits_for_nothing(tiny_bert: Path, name: str) -> None:
    found, wanted = (on_gpu(gradients, tiny_bert, name, device) for device in ("cuda", "cpu"))
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-3, atol=1e-6)
