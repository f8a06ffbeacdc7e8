"""The fingerprint of a guide: another for whatever changes an embedding, and only for that."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.guides import make_guide
from helpers.tiny import save_tiny_bert, tiny_tokenizer
from inbatch.encoder import Encoder, build_encoder
from inbatch.guide.fingerprint import describe_guide, fingerprint


def _fingerprint(encoder: Encoder, **options: str) -> str:
    options = {"store_dtype": "float32", "compute_dtype": "float32", **options}
    return fingerprint(describe_guide(encoder, **options))


def test_the_same_guide_in_another_place_after_use(tiny_bert: Path, tmp_path: Path) -> None:
    wanted = _fingerprint(make_guide(tiny_bert))
    assert len(wanted) == 32
    shutil.copytree(tiny_bert, tmp_path / "copy")
    copy = make_guide(tmp_path / "copy", attention="eager")
    copy.encode(["red phone"])  # leaves its truncation in the tokenizer
    copy.train()
    assert _fingerprint(copy) == wanted


def _nudge(encoder: Encoder) -> None:
    with torch.no_grad():
        next(encoder.parameters())[0, 0] += 1e-6


def _rename_token(encoder: Encoder) -> None:
    object.__setattr__(encoder.tokenizer, "hf", tiny_tokenizer(extra=["new"]))


@pytest.mark.parametrize("change", [_nudge, _rename_token, torch.nn.Module.bfloat16])
def test_changed_weights_or_tokenizer(tiny_bert: Path, change: Callable[[Encoder], Any]) -> None:
    encoder = make_guide(tiny_bert)
    before = _fingerprint(encoder)
    change(encoder)
    assert _fingerprint(encoder) != before


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 8},
        {"pooling": "cls"},
        {"normalize": True},
        {"include_prompt": False},
        {"dense": {"out_features": 32}},
        {"dense": {"out_features": 32, "activation": "ReLU"}},
    ],
    ids=str,
)
def test_another_configuration(tiny_bert: Path, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    found = {
        _fingerprint(make_guide(tiny_bert)),
        _fingerprint(build_encoder(str(tiny_bert), **options)),
    }
    assert len(found) == 2


def test_activations_of_equal_weights_differ(tiny_bert: Path) -> None:
    found = set()
    for activation in ("Tanh", "ReLU"):
        torch.manual_seed(0)
        dense = {"out_features": 32, "activation": activation}
        found.add(_fingerprint(build_encoder(str(tiny_bert), dense=dense)))
    assert len(found) == 2


def test_another_model_or_precision(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = make_guide(tiny_bert)
    found = {
        _fingerprint(encoder),
        _fingerprint(encoder, store_dtype="float16"),
        _fingerprint(encoder, compute_dtype="bfloat16"),
        _fingerprint(make_guide(save_tiny_bert(tmp_path / "other", seed=1))),
    }
    assert len(found) == 4


def test_a_layer_norm_epsilon_counts(tiny_bert: Path) -> None:
    encoder = make_guide(tiny_bert)
    before = _fingerprint(encoder)
    encoder.backbone.config.layer_norm_eps = 1e-5
    assert _fingerprint(encoder) != before
