"""Evaluation and encoding from Python, and the public names of the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

import inbatch
from helpers.tiny import tiny_texts

ROWS = [
    {"query": query, "positive": positive}
    for query, positive in zip(tiny_texts(12, seed=1), tiny_texts(12, seed=2), strict=True)
]


def test_a_saved_model_and_an_encoder_alike(tiny_bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    pandas.DataFrame(ROWS).to_csv(file, index=False)
    metrics = inbatch.evaluate(tiny_bert, ROWS, device="cpu")
    assert "eval_cosine_ndcg@10" in metrics
    assert inbatch.evaluate(inbatch.load_encoder(tiny_bert), file) == metrics
    named = inbatch.evaluate(str(tiny_bert), {"a": file, "b": pandas.DataFrame(ROWS)}, device="cpu")
    assert named["a_cosine_ndcg@10"] == named["b_cosine_ndcg@10"] == metrics["eval_cosine_ndcg@10"]


def test_a_loaded_encoder_encodes(tiny_bert: Path) -> None:
    encoder = inbatch.load_encoder(tiny_bert, max_length=8)
    assert not encoder.training
    assert encoder.encode(["red phone", "blue case"]).shape == (2, 32)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model: inbatch.load_encoder("no/such/model"), "no/such/model"),
        (lambda model: inbatch.load_encoder(model, device="tpu"), "device='tpu' cannot be used"),
        (lambda model: inbatch.evaluate(model, "none.csv"), "none.csv"),
        (lambda model: inbatch.evaluate(model, 3), "data is a int, which holds no rows"),
    ],
)
def test_mistakes(tiny_bert: Path, call: Any, said: str) -> None:
    with pytest.raises(inbatch.ConfigError) as error:
        call(tiny_bert)
    assert said in str(error.value)


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, json, inbatch; print(json.dumps([*sys.modules])); dir(inbatch)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = json.loads(found.stdout)
    assert "torch" not in modules
    assert [name for name in modules if name.startswith("inbatch")] == ["inbatch"]


def test_public_names() -> None:
    later = {"ContrastiveStep"} - set(dir(inbatch))
    assert not later
    names = [name for name in inbatch.__all__ if name != "ContrastiveStep"]
    assert all(getattr(inbatch, name) is not None for name in names)
    assert inbatch.losses.GIST.__name__ == "GIST"
    assert (Path(inbatch.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        inbatch.nothing  # noqa: B018
    assert torch.is_tensor(torch.zeros(1))
