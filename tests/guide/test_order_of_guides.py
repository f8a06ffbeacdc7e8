"""A look-up comes once the device has all embeddings to do; a guide that computes comes before any graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import inbatch
from helpers.guides import make_guide, make_source
from helpers.keystone import LOSSES, make_encoder
from inbatch.batch.batch import Batch
from inbatch.errors import ConfigError
from inbatch.guide import Guide, LiveGuide, StoredGuide
from inbatch.guide.fill import FillSettings

ROWS = 12


def _steps(path: Path, guide: Guide, events: list[str]) -> Tensor:
    """The gradient of a step; what happened is written down."""
    encoder = make_encoder(path, torch.float64)
    encoder.register_forward_hook(lambda *_: events.append("chunk"))
    embed = guide.embed

    def watched(batch: Batch, device: torch.device) -> Tensor:
        events.append("guide")
        return embed(batch, device)

    guide.embed = watched  # type: ignore[method-assign]
    step = inbatch.ContrastiveStep(encoder.train(), LOSSES["gist"], guide=guide)
    columns, _ = make_source().read(np.arange(ROWS))
    step(step.collate(dict(zip(make_source().columns, columns)), chunk_rows=9))
    return torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])


def _stored(path: Path, folder: Path) -> StoredGuide:
    sizes = FillSettings(chunk_tokens=256)
    encoder = make_guide(path)
    return StoredGuide(
        encoder, [make_source()], store_dir=folder, store_dtype="float32", fill=sizes
    )


def test_the_order_of_guides(tiny_bert: Path, tmp_path: Path) -> None:
    live, stored = list[str](), list[str]()
    wanted = _steps(tiny_bert, LiveGuide(make_guide(tiny_bert)), live)
    guide = _stored(tiny_bert, tmp_path)
    guide._prompts_of["rows"] = ("", "", "")
    found = _steps(tiny_bert, guide, stored)
    assert live == ["guide", *["chunk"] * 4]
    assert stored == [*["chunk"] * 4, "guide"]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-9)


def test_a_missing_text_ends_in_its_sentence(tiny_bert: Path, tmp_path: Path) -> None:
    guide = _stored(tiny_bert, tmp_path)
    step = inbatch.ContrastiveStep(
        make_encoder(tiny_bert, torch.float32), LOSSES["gist"], guide=guide
    )
    texts = {name: [f"never {name} {n}" for n in range(4)] for name in ("query", "positive")}
    with pytest.raises(ConfigError, match=r"guide\.store_dir=.* lacks the embeddings of 8 texts"):
        step(step.collate(texts))
