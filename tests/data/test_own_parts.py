"""A user's own sampler and evaluator run by `_target_` alone, on one rank and on two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.distributed import run
from helpers.runs import metrics, run_train, train_as_rank, write_triplets

OWN = [
    "sampler._target_=helpers.own_parts.InOrder",
    "+sampler.max_batches=3",
    "+evaluation.evaluators.norm._target_=helpers.own_parts.MeanNorm",
    "+evaluation.evaluators.norm.texts=[red phone, blue case]",
]


@pytest.mark.parametrize("world_size", [1, 2])
def test_own_sampler_and_evaluator(tmp_path: Path, world_size: int) -> None:
    write_triplets(tmp_path / "triplets.jsonl", 40)
    output = tmp_path / "run"
    options = [
        f"data.train={tmp_path / 'triplets.jsonl'}",
        "global_batch_size=8",
        "sampler=batch",
        *OWN,
        f"output_dir={output}",
    ]
    if world_size == 1:
        run_train(*options)
    else:
        run(train_as_rank, world_size, options)
    rows = metrics(output)
    assert max(row["step"] for row in rows) == 3
    assert [row["step"] for row in rows if "eval/norm_mean" in row] == [0, 3]
    report = json.loads((output / "data_report.json").read_text())
    assert report["sources"][0]["num_skipped"] == 40 - 24
    card = (output / "model" / "README.md").read_text()
    assert "Mean Norm" in card
    assert "norm_mean" in card
