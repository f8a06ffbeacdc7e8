"""A run that ends within its first epoch has only those texts embedded by the guide that it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.distributed import run
from helpers.runs import metrics, run_train, train_as_rank, write_triplets

BATCH, ROWS = 6, 96


def num_stored(folder: Path) -> int:
    keys = [np.load(file) for file in folder.glob("*/prompt-*/shard-*/keys.npy")]
    return len(np.unique(np.concatenate(keys)))


def losses(folder: Path) -> list[float]:
    return [row["train/loss"] for row in metrics(folder) if "train/loss" in row]


@pytest.fixture
def options(tmp_path: Path, tiny_bert: Path) -> list[str]:
    return [
        f"data.train.offers={write_triplets(tmp_path / 'offers.jsonl', ROWS)}",
        f"global_batch_size={BATCH}",
        "loss=cached_gist",
        f"guide.model={tiny_bert}",
        "guide.store_dtype=float32",
        "encoder.config.num_hidden_layers=1",
    ]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_five_steps_embed_five_batches(tmp_path: Path, options: list[str], ranks: int) -> None:
    def train(name: str, store: str, *more: str) -> list[float]:
        places = [f"output_dir={tmp_path / name}", f"guide.store_dir={tmp_path / store}"]
        run(train_as_rank, ranks, [*options, *places, *more])
        return losses(tmp_path / name)

    short = train("short", "few", "trainer.max_steps=5")
    # texts that occur twice are embedded once
    assert 2 * 5 * BATCH < num_stored(tmp_path / "few") <= 3 * 5 * BATCH
    whole = train("whole", "all", "schedule=constant")
    assert num_stored(tmp_path / "all") > 2 * 0.9 * ROWS
    assert short == pytest.approx(whole[:5], rel=1e-5)
    assert short == pytest.approx(train("again", "all", "trainer.max_steps=5"), rel=1e-5)
    longer = train("short", "few", "trainer.max_steps=8")  # resumes, and embeds what it lacks
    assert longer == pytest.approx(whole[:8], rel=1e-5)
    assert num_stored(tmp_path / "few") <= 3 * 8 * BATCH


@pytest.mark.parametrize(
    "more",
    [
        ["accumulate=2", "trainer.max_steps=3"],
        ["+data.train.more={folder}/more.jsonl", "sampler=round_robin", "trainer.max_steps=3"],
        ["+data.train.more={folder}/more.jsonl", "sampler=proportional", "sampler.mixed=true",
         "trainer.max_steps=3"],
        ["guide.prompts={query: 'find: '}", "trainer.max_steps=3"],
    ],
    ids=["accumulated", "several sources", "mixed batches", "prompts"],
)  # fmt: skip
def test_other_plans(tmp_path: Path, options: list[str], more: list[str]) -> None:
    write_triplets(tmp_path / "more.jsonl", ROWS, seed=9)
    more = [option.format(folder=tmp_path) if "{folder}" in option else option for option in more]
    found = {}
    for mode in ("stored", "live"):
        places = [f"output_dir={tmp_path / mode}", f"guide.store_dir={tmp_path / 'store'}"]
        run_train(*options, *more, f"guide.mode={mode}", *places)
        found[mode] = losses(tmp_path / mode)
    assert found["stored"] == pytest.approx(found["live"], rel=1e-4)
    batches = 6 if "accumulate=2" in more else 3
    assert num_stored(tmp_path / "store") <= 3 * batches * BATCH
