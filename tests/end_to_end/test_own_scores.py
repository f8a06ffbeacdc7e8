"""Runs that leave out false negatives by the model's own scores, without a guide."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.runs import metrics, run_train, write_triplets


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("cached_gist", {"self_guided": "true"}),
        ("cached_multiple_negatives_ranking", {"mask_margin": "-0.05"}),
    ],
)
def test_a_run_without_a_guide(tmp_path: Path, loss: str, options: dict[str, str]) -> None:
    data = write_triplets(tmp_path / "triplets.jsonl", 48)
    output = run_train(
        f"data.train.triplets={data}",
        "global_batch_size=12",
        f"loss={loss}",
        *(f"loss.{key}={value}" for key, value in options.items()),
        "trainer.max_steps=3",
        f"output_dir={tmp_path / 'run'}",
    )
    shares = [row["train/filtered_share"] for row in metrics(output) if "train/loss" in row]
    assert len(shares) == 3
    assert 0 < max(shares) < 1
    card = (output / "model" / "README.md").read_text()
    for key, value in options.items():
        assert f'"{key}": {value}' in card
    assert '"guide":' not in card
