"""A tokenizer that cannot tell the training texts apart is refused before training."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from helpers.runs import TINY, compose_run, run_train
from inbatch.config.check import check_config
from inbatch.encoder import build_encoder
from inbatch.errors import ConfigError
from inbatch.run.train import train

GEORGIAN = ["წითელი", "ლურჯი", "შავი", "ოქროსფერი"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Knows Latin letters alone."""
    path = tmp_path / "model"
    config = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 8}
    tokenizer = {"train": {"vocab_size": 60}}
    texts = ["abcdefghijklm nopqrstuvwxyz 0123456789"]
    build_encoder(config=config, tokenizer=tokenizer, texts=lambda: texts).save(path)
    return path


def write(path: Path, texts: list[str]) -> Path:
    rows = [{"query": one, "positive": other} for one, other in pairwise(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def options(model: Path, rows: Path) -> list[str]:
    kept = [option for option in TINY if not option.startswith("encoder")]
    of_model = ["encoder=pretrained", f"encoder.model={model}"]
    return [*kept, *of_model, f"data.train={rows}", "global_batch_size=2"]


def test_the_model_to_train(model: Path, tmp_path: Path) -> None:
    given = [
        *options(model, write(tmp_path / "georgian.jsonl", GEORGIAN)),
        f"output_dir={tmp_path / 'run'}",
    ]
    message = (
        r"^encoder.model=\S*model' has a tokenizer that makes the same 3 tokens of all texts of source "
        r"'train', such as '\w+' and '\w+': name a model whose tokenizer belongs to it"
    )
    with pytest.raises(ConfigError, match=message):
        train(check_config(compose_run(*given)))


def test_the_guide(model: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "georgian.jsonl", GEORGIAN)
    given = [f"data.train={rows}", "global_batch_size=2", f"output_dir={tmp_path / 'run'}"]
    guided = ["loss=gist", "guide=minilm", f"guide.model={model}"]
    with pytest.raises(ConfigError, match=r"^guide.model=\S* has a tokenizer that makes the same"):
        run_train(*given, *guided)


def test_texts_that_differ_somewhere_are_trained_on(model: Path, tmp_path: Path) -> None:
    rows = write(tmp_path / "mixed.jsonl", [*GEORGIAN, "red"])
    given = [*options(model, rows), f"output_dir={tmp_path / 'run'}"]
    result = train(check_config(compose_run(*given)))
    assert (result.model / "model.safetensors").is_file()
