"""A query in two of five rows, so that plans differ in size: what is announced is what is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.distributed import run
from helpers.runs import TINY, compose_run, metrics, run_train, train_as_rank, weights
from inbatch.config.check import check_config
from inbatch.config.instantiate import instantiate
from inbatch.data.sources.load import load_sources
from inbatch.run.datamodule import source_info
from inbatch.run.module import BiEncoderModule

OPTIONS = (
    "sampler=no_duplicates",
    "accumulate=4",
    "trainer.max_epochs=2",
    "checkpoint.every_n_steps=1",
    "encoder.config.num_hidden_layers=1",
    "+encoder.config.hidden_dropout_prob=0.1",
)


def _options(folder: Path, num_rows: int, batch: int) -> list[str]:
    rows = [
        {"query": "red phone" if i % 5 < 2 else f"query {i}", "positive": f"positive {i}"}
        for i in range(num_rows)
    ]
    path = folder / "hot.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"data.train.hot={path}", f"global_batch_size={batch}", *OPTIONS]


def _plan_sizes(options: list[str]) -> list[int]:
    config = check_config(compose_run(*TINY, *options))
    infos = [source_info(source) for source in load_sources(config.data.train)]
    sampler, batch = instantiate(config.sampler), config.global_batch_size
    return [
        sampler.plan(
            infos, global_batch_size=batch, seed=config.seed, epoch=epoch, drop_last=True
        ).num_steps
        for epoch in range(2)
    ]


@pytest.fixture
def clean_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs that began without a gradient of the one before; another one fails."""
    epochs: list[int] = []

    def on_train_epoch_start(module: BiEncoderModule) -> None:
        assert all(parameter.grad is None for parameter in module.parameters())
        epochs.append(module.current_epoch)

    monkeypatch.setattr(BiEncoderModule, "on_train_epoch_start", on_train_epoch_start)
    return epochs


def _announced(printed: str) -> list[str]:
    return [line.split()[1] for line in printed.splitlines() if line.startswith("run.steps:")]


def test_announced_steps_are_done_and_no_gradient_is_left(
    tmp_path: Path, clean_epochs: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(tmp_path, 222, 3)
    assert _plan_sizes(options) == [65, 64], "the data should make plans of unequal size"
    whole = run_train(*options, f"output_dir={tmp_path / 'whole'}")
    assert [row["step"] for row in metrics(whole)] == list(range(1, 35))  # twice 17
    assert _announced(capsys.readouterr().out) == ["34"]
    assert clean_epochs == [0, 1]
    parts = tmp_path / "parts"
    for stop in (9, 17, 25, 34):  # inside and at the ends of epochs and plans
        run_train(*options, f"output_dir={parts}", f"trainer.max_steps={stop}")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name


def test_ranks_agree_on_the_epochs(tmp_path: Path) -> None:
    options = [*_options(tmp_path, 270, 4), "+encoder.config.attention_probs_dropout_prob=0"]
    options[-2] = options[-2].replace("0.1", "0")
    assert _plan_sizes(options) == [54, 53]
    run_train(*options, f"output_dir={tmp_path / 'one'}")
    two = [*options, f"output_dir={tmp_path / 'two'}"]
    run(train_as_rank, 2, [*two, "trainer.max_steps=17"])
    run(train_as_rank, 2, two)
    one, other = (metrics(tmp_path / name) for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in other] == list(range(1, 29))
    for a, b in zip(one, other, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], abs=1e-3)
