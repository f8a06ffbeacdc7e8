"""A stored guide embeds what training gets to, portion by portion; stopped or killed there, a run goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import TINY, compose_run, metrics, run_with, weights, write_triplets
from inbatch.callbacks.pauses import PauseWatcher
from inbatch.cluster.stop_request import Preempted, StopRequest
from inbatch.config.check import check_config
from inbatch.folder.saved import name_of_step
from inbatch.guide.fill import FillSettings
from inbatch.guide.store import Table
from inbatch.run.train import train

BATCH, ROWS = 6, 83  # 13 batches in an epoch, 5 rows in none of them
FIRST = 2  # batches of the first portion, 4 and 8 the next ends
SMALL = {"window_texts": 16, "shard_texts": 4}
KEYS = "*/prompt-*/shard-*/keys.npy"


def stored(folder: Path) -> dict[int, bytes]:
    """The rows of all texts, by hash."""
    found: dict[int, bytes] = {}
    for file in folder.glob(KEYS):
        keys, rows = np.load(file), np.load(file.with_name("rows.npy"))
        found |= {key: row.tobytes() for key, row in zip(keys.tolist(), rows)}
    return found


def options_of(folder: Path, guide: Path, name: str) -> list[str]:
    data = folder / "offers.jsonl"
    return [
        f"data.train.offers={data if data.exists() else write_triplets(data, ROWS)}",
        f"global_batch_size={BATCH}",
        "drop_last=true",
        "loss=cached_gist",
        f"guide.model={guide}",
        "guide.store_dtype=float32",
        "guide.chunk_tokens=64",
        "encoder.config.num_hidden_layers=1",
        f"output_dir={folder / name}",
        f"guide.store_dir={folder / name / 'store'}",
    ]


def losses(folder: Path) -> list[float]:
    return [row["train/loss"] for row in metrics(folder) if "train/loss" in row]


def in_portions(patch: pytest.MonkeyPatch, ranks: int, first: int = FIRST) -> None:
    patch.setattr("inbatch.run.guide_portions.FIRST_TEXTS", first * BATCH * 3 // ranks)
    patch.setattr("inbatch.run.build.FillSettings", partial(FillSettings, **SMALL))
    patch.setattr("inbatch.guide.rounds.ROUND_S", 0.0)


class Seen(Callback, PauseWatcher):
    """What is stored before each step, and before which steps training has paused for the guide."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.num_stored: list[int] = []
        self.pauses: list[int] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.num_stored.append(sum(map(len, map(np.load, self.store.glob(KEYS)))))
        trainer.strategy.barrier()

    def on_pause(self, trainer: Trainer, name: str) -> None:
        if name == "guide":
            self.pauses.append(trainer.global_step)

    def on_resume(self, trainer: Trainer, name: str, results: Any) -> None:
        pass


def _seen(
    rank: int, world_size: int, store: Path, overrides: list[str]
) -> tuple[list[int], list[int]]:
    quiet()
    seen = Seen(store)
    run_with(seen, None, *overrides)
    return seen.num_stored, seen.pauses


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_the_store_grows_with_training(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    def trained(name: str, store: str = "") -> tuple[list[int], list[int]]:
        folder = tmp_path / (store or name) / "store"
        overrides = [*options_of(tmp_path, tiny_bert, name), "trainer.max_epochs=2"]
        return run(_seen, ranks, folder, [*overrides, f"guide.store_dir={folder}"])[0]

    in_portions(monkeypatch, ranks, first=100)
    all_at_once = trained("whole")
    num_texts = len(stored(tmp_path / "whole" / "store"))
    assert all_at_once == ([num_texts] * 26, [])
    in_portions(monkeypatch, ranks)
    counts, pauses = trained("along")
    # a step before the last that can do without; at the end of the epoch what no batch of it had
    assert pauses == [1, 3, 7, 12]
    assert counts == sorted(counts)
    assert counts[0] <= 3 * BATCH * FIRST < counts[1] <= 3 * BATCH * 4 < counts[3] < counts[7]
    assert counts[7] < counts[12] == counts[-1] == num_texts
    assert losses(tmp_path / "along") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    found, wanted = (stored(tmp_path / name / "store") for name in ("along", "whole"))
    assert trained("again", store="along") == all_at_once  # all is there
    assert losses(tmp_path / "again") == losses(tmp_path / "along")
    assert found.keys() == wanted.keys()
    for key, row in found.items():
        here, there = (np.frombuffer(values, np.float32) for values in (row, wanted[key]))
        np.testing.assert_allclose(here, there, atol=1e-5)


def _train(
    rank: int, world_size: int, overrides: list[str], at_third: Callable[[], None] | None
) -> str | None:
    """Train; on rank 1, something happens after the second shard beyond step 3. What has stopped the run."""
    quiet()
    output = Path(next(o for o in overrides if o.startswith("output_dir=")).partition("=")[2])
    add, shards = Table.add, []

    def watched(self: Table, keys_n: np.ndarray, rows_nD: np.ndarray) -> str:
        name = add(self, keys_n, rows_nD)
        shards.append((output / "checkpoints" / name_of_step(3)).exists())
        if rank == 1 and at_third is not None and sum(shards) == 2:
            at_third()
        return name

    with pytest.MonkeyPatch.context() as patch, StopRequest() as stop:
        patch.setattr(Table, "add", watched)
        try:
            train(check_config(compose_run(*TINY, *overrides)), stop)
        except Preempted as stopped:
            return str(stopped)
    return None


def _die() -> None:
    os._exit(9)


def _ask() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Iterator[Path]:
    """The folder of a run in portions that nothing has stopped."""
    folder = tmp_path_factory.mktemp("along")
    with pytest.MonkeyPatch.context() as patch:
        in_portions(patch, 2)
        run(_train, 2, _short(folder, tiny_bert, "whole"), None)
        yield folder


def _short(folder: Path, guide: Path, name: str) -> list[str]:
    limits = ["trainer.max_steps=9", "checkpoint.every_n_steps=1"]
    return [*options_of(folder, guide, name), *limits]


@pytest.mark.parametrize("kind", ["killed", pytest.param("stopped", marks=pytest.mark.exhaustive)])
def test_a_run_that_ends_while_it_embeds_goes_on(whole: Path, tiny_bert: Path, kind: str) -> None:
    overrides, output = _short(whole, tiny_bert, kind), whole / kind
    if kind == "killed":
        with pytest.raises(AssertionError):
            run(_train, 2, overrides, _die)
    else:
        words = run(_train, 2, overrides, _ask)
        assert words[0] == words[1]
        assert str(words[0]).startswith("stopped by SIGUSR1 after step 4, ")
    wanted = stored(whole / "whole" / "store")
    left = len(stored(output / "store"))
    assert 3 * BATCH < left < len(wanted)
    assert not (output / "model").exists()
    assert run(_train, 2, overrides, None) == [None, None]
    assert stored(output / "store") == wanted
    assert losses(output) == losses(whole / "whole")
    for name, tensor in weights(whole / "whole").items():
        assert torch.equal(tensor, weights(output)[name]), name
