"""Whole runs on emulated CUDA devices: train, resume, evaluate, export, run out of memory, two ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from helpers.emulated_cuda.process import group, on_gpu
from helpers.keystone import quiet
from helpers.runs import TINY, metrics, run_train, weights, write_triplets
from inbatch.cli.main import main

pytestmark = group

ON_GPU = ("trainer.accelerator=cuda", "trainer.max_epochs=-1", "global_batch_size=12")
NO_DROPOUT = (
    "+encoder.config.hidden_dropout_prob=0",
    "+encoder.config.attention_probs_dropout_prob=0",
)


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    rows = write_triplets(tmp_path / "triplets.jsonl", 48)
    write_triplets(tmp_path / "dev.jsonl", 24, seed=50)
    return [f"data.train={rows}", *ON_GPU]


def command(*line: str) -> None:
    """Run a command as from a shell, without starting another process."""
    sys.argv = ["inbatch", *line]
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


def life_of_a_run(folder: Path, guide: Path, precision: str, options: list[str]) -> None:
    quiet()
    options = [
        *options,
        *("loss=cached_gist", "gradcache.chunk_tokens=128", f"precision={precision}"),
        *(f"guide.model={guide}", f"guide.store_dir={folder / 'guide'}"),
        *(f"data.eval={folder / 'dev.jsonl'}", "evaluation.every_steps=2"),
        "checkpoint.every_n_steps=1",
    ]
    whole, parts = folder / "whole", folder / "parts"
    command("train", *TINY, *options, f"output_dir={whole}", "trainer.max_steps=6")
    for steps in (2, 5, 6):  # in the middle of an epoch of four, and of the next one
        run_train(*options, f"output_dir={parts}", f"trainer.max_steps={steps}")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name
    rows = [[row for row in metrics(each) if "train/loss" in row] for each in (whole, parts)]
    assert [row["train/loss"] for row in rows[0]] == [row["train/loss"] for row in rows[1]]
    assert 0 < rows[0][-1]["perf/peak_memory_gib"] < 1  # the device's, not this process's
    assert rows[0][-1]["train/filtered_share"] > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_life_of_a_run(tmp_path: Path, tiny_bert: Path, options: list[str], precision: str) -> None:
    on_gpu(life_of_a_run, tmp_path, tiny_bert, precision, options)
