"""Embedding, mining and merging from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

import inbatch
from helpers.tiny import tiny_texts
from inbatch.corpus import open_embeddings
from inbatch.encoder import build_encoder

ON_CPU: dict[str, Any] = {"trainer": {"accelerator": "cpu"}, "precision": "fp32"}
ROWS = pandas.DataFrame(
    {"query": tiny_texts(12, seed=1), "positive": tiny_texts(12, seed=2), "sku": range(12)}
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    ROWS.to_parquet(path)
    return path


def test_embeddings_are_those_of_the_encoder(tiny_bert: Path, tmp_path: Path, rows: Path) -> None:
    options: dict[str, Any] = {"encoder": tiny_bert, "columns": {"text": "positive"}, **ON_CPU}
    options["data.cache_dir"] = str(tmp_path / "cache")
    folder = inbatch.embed(rows, output_dir=tmp_path / "store", **options)
    stored = open_embeddings(folder)
    found = np.array(stored.rows(0, len(stored)))
    wanted = inbatch.load_encoder(tiny_bert).encode(list(ROWS.positive))
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    file = inbatch.embed([rows], output_dir=tmp_path / "npy", format="npy", **options)
    assert np.load(file).tolist() == found.tolist()


def test_mined_rows_are_trained_on(tiny_bert: Path, tmp_path: Path, rows: Path) -> None:
    folder = inbatch.mine(
        {"shop": rows},
        encoder=tiny_bert,
        mine={"num_negatives": 2},
        output_dir=tmp_path / "mined",
        **ON_CPU,
        **{"data.cache_dir": str(tmp_path / "cache")},
    )
    (mined,) = folder.glob("mined-*.parquet")
    table = pandas.read_parquet(mined)
    assert list(table["query"]) == list(ROWS["query"])
    assert {len(negatives) for negatives in table["negative"]} == {2}
    result = inbatch.train(
        mined, encoder=tiny_bert, global_batch_size=6, output_dir=tmp_path / "run", **ON_CPU
    )
    assert (result.model / "model.safetensors").is_file()


def test_merged_weights_are_the_mean(tiny_bert: Path, tmp_path: Path) -> None:
    for name, factor in {"low": 1.0, "high": 3.0}.items():
        encoder = build_encoder(str(tiny_bert))
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.fill_(factor)
        encoder.save(tmp_path / name)
    model = inbatch.merge([tmp_path / "low", tmp_path / "high"], output_dir=tmp_path / "merged")
    assert model == tmp_path / "merged" / "model"
    assert {float(p.detach().mean()) for p in inbatch.load_encoder(model).parameters()} == {2.0}
    assert (
        json.loads((tmp_path / "merged" / "merge.json").read_text())["settings"]["method"] == "mean"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model, rows: inbatch.mine(ROWS, encoder=model),
            "^train is a table in memory, and only files are taken here: write it to a parquet file",
        ),
        (
            lambda model, rows: inbatch.embed(rows, encoder=model, rolle="query"),
            "^rolle is not a valid key of the configuration: did you mean 'role'",
        ),
        (
            lambda model, rows: inbatch.embed(rows, encoder=model, trainer={"devices": 2}),
            "^trainer.devices=2 needs several processes, .* run `inbatch embed ... trainer.devices=2`",
        ),
        (
            lambda model, rows: inbatch.merge([model], method="meen"),
            "^method='meen' is not one of mean, slerp, greedy: did you mean 'mean'",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    tiny_bert: Path, tmp_path: Path, rows: Path, call: Any, message: str
) -> None:
    with pytest.raises(inbatch.ConfigError, match=message):
        call(tiny_bert, rows)
