"""Runs on sources that are read file by file: exact resume, and the same on one rank and on two."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch

from helpers.distributed import run
from helpers.runs import metrics, run_train, train_as_rank, weights
from helpers.tiny import tiny_texts

NO_DROPOUT = (
    "+encoder.config.hidden_dropout_prob=0",
    "+encoder.config.attention_probs_dropout_prob=0",
)


def options_of(folder: Path) -> list[str]:
    """Five files of pairs, two of which are open at a time."""
    texts = tiny_texts(120, seed=3, min_words=4)
    for place in range(5):
        with gzip.open(folder / f"{place}.jsonl.gz", "wt") as file:
            for row in range(12):
                number = 12 * place + row
                pair = {"query": texts[number], "positive": texts[60 + number]}
                file.write(json.dumps(pair) + "\n")
    source = f"{{path: {folder}/*.jsonl.gz, streaming: true, buffer_files: 2}}"
    return [
        "data=files",
        f"data.train={{pairs: {source}}}",
        f"data.cache_dir={folder / 'cache'}",
        "loss=multiple_negatives_ranking",
        "global_batch_size=8",
    ]


def mixed_with_a_table(folder: Path) -> list[str]:
    """Options that put rows of the files and of a table into each batch."""
    texts = tiny_texts(40, seed=4, min_words=4)
    lines = [json.dumps({"query": texts[i], "positive": texts[20 + i]}) for i in range(20)]
    (folder / "table.jsonl").write_text("\n".join(lines))
    return [f"+data.train.table={folder}/table.jsonl", "sampler=proportional", "sampler.mixed=true"]


def losses(folder: Path) -> list[float]:
    return [row["train/loss"] for row in metrics(folder) if "train/loss" in row]


@pytest.mark.parametrize("how", [pytest.param("workers", marks=pytest.mark.exhaustive), "mixed"])
def test_a_resumed_run_is_bit_identical(tmp_path: Path, how: str) -> None:
    options = [*options_of(tmp_path), "trainer.max_epochs=5", "checkpoint.every_n_steps=1"]
    if how == "workers":
        options += ["data.loader.num_workers=2", "accumulate=2"]
    else:
        options += mixed_with_a_table(tmp_path)
    whole = run_train(*options, f"output_dir={tmp_path / 'whole'}", "trainer.max_steps=7")
    for stop in (2, 5, 7):
        # Copies of files are no part of the state.
        for copy in (tmp_path / "cache").glob("stream-*/rows-*"):
            copy.unlink()
        parts = run_train(*options, f"output_dir={tmp_path / 'parts'}", f"trainer.max_steps={stop}")
    assert len(losses(whole)) == 7
    assert losses(whole) == losses(parts)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name


@pytest.mark.parametrize("mixed", [False, True], ids=["one source", "mixed"])
def test_two_ranks_train_as_one(tmp_path: Path, mixed: bool) -> None:
    options = [*options_of(tmp_path), *NO_DROPOUT, "trainer.max_steps=3"]
    if mixed:
        options += mixed_with_a_table(tmp_path)
    one = run_train(*options, f"output_dir={tmp_path / 'one'}")
    shutil.rmtree(tmp_path / "cache")  # so that the two make the index together
    run(train_as_rank, 2, [*options, f"output_dir={tmp_path / 'two'}"])
    assert losses(tmp_path / "two") == pytest.approx(losses(one), abs=1e-5)
    assert list((tmp_path / "cache").glob("stream-*/.*")) == []
