"""A run is resumed with the sizes that it began with, whatever memory is free then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.distributed import run
from helpers.keystone import quiet
from helpers.runs import metrics, run_train, weights, write_triplets
from inbatch.callbacks.checkpoints import RECORD
from inbatch.device.memory import free_bytes

GIB = 2**30


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    path = write_triplets(tmp_path / "triplets.jsonl", 64)
    return [
        f"data.train={path}",
        "global_batch_size=32",
        "gradcache=tokens",
        "encoder.config.hidden_dropout_prob=0.1",
        "trainer.max_epochs=-1",
        "checkpoint.every_n_steps=2",
    ]


def _train(
    monkeypatch: pytest.MonkeyPatch, free_gib: float, output: Path, options: list[str], steps: int
) -> None:
    assert free_bytes(torch.device("cpu")) > 0  # what stands in for it below
    with monkeypatch.context() as patch:
        patch.setattr("inbatch.run.auto_sizes.free_bytes", lambda device: free_gib * GIB)
        run_train(*options, f"trainer.max_steps={steps}", f"output_dir={output}")


@pytest.mark.parametrize("later_gib", [0.05, 64.0])
def test_other_free_memory_changes_nothing(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, later_gib: float
) -> None:
    first = 0.02  # where chunks are cut smaller than usual, and not all graphs fit
    _train(monkeypatch, first, tmp_path / "whole", options, 4)
    _train(monkeypatch, first, tmp_path / "parts", options, 2)
    _train(monkeypatch, later_gib, tmp_path / "parts", options, 4)
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "parts")[name]), name
    losses = [[row["train/loss"] for row in metrics(tmp_path / n)] for n in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_chunks_that_no_longer_fit_are_said(
    tmp_path: Path,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _train(monkeypatch, 64.0, tmp_path / "run", options, 2)
    capsys.readouterr()
    _train(monkeypatch, 0.02, tmp_path / "run", options, 4)
    said = "tokens, where 1024 do not fit the free memory any more: dropout draws other values"
    assert said in capsys.readouterr().out


def test_what_was_halved_stays_halved(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from inbatch.gradcache import OutOfMemoryHandler

    output = tmp_path / "run"
    options = [*options, "loss=multiple_negatives_ranking"]
    with monkeypatch.context() as patch:
        patch.setattr(OutOfMemoryHandler, "__init__", _halved(OutOfMemoryHandler.__init__))
        run_train(*options, "trainer.max_steps=4", f"output_dir={tmp_path / 'whole'}")
        run_train(*options, "trainer.max_steps=2", f"output_dir={output}")
    record = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)[RECORD]
    assert (record["halvings"], record["panel_halvings"]) == ([1], [2])
    run_train(*options, "trainer.max_steps=4", f"output_dir={output}")
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(output)[name]), name


def _halved(init):  # type: ignore[no-untyped-def]
    """As after a batch that ran out of memory."""

    def made(handler, budget):  # type: ignore[no-untyped-def]
        init(handler, budget)
        handler.num_halvings, handler.panel_halvings = 1, 2

    return made


def _train_on_ranks(rank: int, world_size: int, output: Path, options: list[str]) -> list[Any]:
    quiet()
    with pytest.MonkeyPatch.context() as patch:
        free = (64.0, 0.04)[rank] * GIB
        patch.setattr("inbatch.run.auto_sizes.free_bytes", lambda device: free)
        run_train(*options, "trainer.max_steps=2", f"output_dir={output}")
    record = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)[RECORD]
    return [record["chunk_tokens"], record["settings"]["gradcache"]["keep_gib"]]


def test_ranks_take_the_sizes_of_the_one_with_least_memory(
    tmp_path: Path, options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    options = [*options, "trainer.devices=2"]
    tokens, keep_gib = run(_train_on_ranks, 2, tmp_path / "run", options)[0]
    assert tokens[0] == tokens[1] < 1024
    assert keep_gib < 0.04
    said = f"memory  chunks of at most {tokens[0]} tokens, "
    assert capfd.readouterr().out.count(said) == 1
