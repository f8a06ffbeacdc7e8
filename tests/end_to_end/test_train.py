"""From files to a model directory, and on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from helpers.runs import metrics, run_train, weights, write_triplets
from inbatch.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def triplets(tmp_path: Path) -> Path:
    return write_triplets(tmp_path / "triplets.jsonl")


def _data(path: Path) -> list[str]:
    return [f"data.train.triplets={path}", "global_batch_size=8"]


def test_a_run_leaves_a_model_that_sentence_transformers_loads(
    tmp_path: Path, triplets: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    from inbatch.encoder import build_encoder

    dev = write_triplets(tmp_path / "dev.jsonl", 20, seed=50)
    output = run_train(
        *_data(triplets),
        f"output_dir={tmp_path / 'run'}",
        "evaluation=triplet",
        f"data.eval={dev}",
        "gradcache=rows",
        "trainer.max_epochs=2",
        plots=True,
    )
    texts = ["red phone case", "usb cable", "leather wallet 2021"]
    ours = build_encoder(str(output / "model")).encode(texts)
    theirs = SentenceTransformer(str(output / "model"), device="cpu").encode(
        texts, convert_to_tensor=True
    )
    assert torch.nn.functional.cosine_similarity(ours, theirs).min() > 1 - 1e-6
    card = ModelCard.load(output / "model" / "README.md")
    assert card.data.library_name == "sentence-transformers"
    assert card.data.eval_results[0].metric_type == "cosine_accuracy"
    for name in (
        "config.yaml",
        "data_report.md",
        "data_report.json",
        "metrics.csv",
        "plots/loss.png",
    ):
        assert (output / name).stat().st_size > 0, name
    rows = metrics(output)
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 17))
    assert {"eval/eval_cosine_accuracy"} <= rows[0].keys()
    assert rows[0]["step"] == 0


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["data.loader.num_workers=2", "accumulate=2", "sampler=no_duplicates"],
        ["+encoder.config.hidden_dropout_prob=0.2", "gradcache=rows", "gradcache.chunk_size=5"],
    ],
    ids=["plain", "workers and accumulation", "dropout and cache"],
)
def test_a_resumed_run_is_bit_identical(tmp_path: Path, triplets: Path, options: list[str]) -> None:
    options = [
        *_data(triplets),
        "trainer.max_epochs=5",
        "checkpoint.every_n_steps=1",
        *options,
    ]
    whole = run_train(*options, f"output_dir={tmp_path / 'whole'}", "trainer.max_steps=11")
    for stop in (3, 8, 11):  # 8 batches an epoch: stops inside the first, at its end or later
        parts = run_train(*options, f"output_dir={tmp_path / 'parts'}", f"trainer.max_steps={stop}")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name
    losses = [
        [row["train/loss"] for row in metrics(run) if "train/loss" in row] for run in (whole, parts)
    ]
    assert losses[0] == losses[1]


def test_a_changed_plan_is_refused(tmp_path: Path, triplets: Path) -> None:
    from inbatch.errors import ConfigError

    options = [*_data(triplets), f"output_dir={tmp_path / 'run'}"]
    run_train(*options, "trainer.max_steps=3")
    for change, name in (("seed=7", "seed"), ("global_batch_size=12", "global_batch_size")):
        with pytest.raises(ConfigError, match=name):
            run_train(*options, "trainer.max_steps=6", change)


def test_a_batch_of_more_rows_than_the_data_has_is_the_last_and_kept(tmp_path: Path) -> None:
    rows = write_triplets(tmp_path / "rows.jsonl", 7)
    options = [f"data.train={rows}", "global_batch_size=8", "trainer.max_epochs=2"]
    output = run_train(*options, f"output_dir={tmp_path / 'run'}")
    assert [row["step"] for row in metrics(output) if "train/loss" in row] == [1, 2]
    with pytest.raises(ConfigError, match=r"rows of the data: set 7 or less, or drop_last=false"):
        run_train(*options, "drop_last=true", f"output_dir={tmp_path / 'full'}")
