"""A Ctrl-C, or a notebook's stop button, in `inbatch.train`."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import inbatch
from helpers.runs import metrics, no_plots
from helpers.tiny import tiny_texts
from inbatch.losses import LossInput, LossOutput, MultipleNegativesRanking

NUM_STEPS = 6
computed: list[int] = []
interrupts: list[int] = []  # losses, counted from 1, while whose computation Ctrl-C is pressed


@dataclass(frozen=True)
class Interrupted(MultipleNegativesRanking):
    """Has Ctrl-C pressed."""

    def __call__(self, inputs: LossInput) -> LossOutput:
        computed.append(1)
        for _ in range(interrupts.count(len(computed))):
            signal.raise_signal(signal.SIGINT)
        return super().__call__(inputs)


def train(model: Path, folder: Path, *steps: int) -> inbatch.TrainResult:
    computed.clear()
    interrupts[:] = steps
    queries, positives = tiny_texts(24, seed=1, min_words=3), tiny_texts(24, seed=2, min_words=3)
    rows = [{"query": q, "positive": p} for q, p in zip(queries, positives, strict=True)]
    settings: dict[str, Any] = {"trainer.max_steps": NUM_STEPS, "trainer.max_epochs": -1}
    return inbatch.train(
        rows,
        encoder=model,
        loss=Interrupted(),
        global_batch_size=8,
        output_dir=folder,
        **settings,
    )


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    no_plots(monkeypatch)


def test_it_saves_the_step_and_the_same_call_goes_on(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(tiny_bert, tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt, match=r"after step 4, which .*last\.ckpt holds"):
        train(tiny_bert, parts, 4)
    assert "Ctrl-C: saves after this step and stops" in capsys.readouterr().out
    assert metrics(parts)[-1]["step"] == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    result = train(tiny_bert, parts)
    assert len(computed) == NUM_STEPS - 4
    for name, tensor in whole.load().state_dict().items():
        assert torch.equal(tensor, result.load().state_dict()[name]), name


@pytest.mark.parametrize("steps", [(1,), (3, 3)], ids=["before the first step", "twice"])
def test_it_stops_at_once(tiny_bert: Path, tmp_path: Path, steps: tuple[int, ...]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny_bert, tmp_path / "run", *steps)
    assert len(computed) == steps[0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_program_stays(tiny_bert: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    train(tiny_bert, tmp_path / "run", 2)
    assert seen == [signal.SIGINT]
    assert len(computed) == NUM_STEPS


def test_it_trains_in_a_thread(tiny_bert: Path, tmp_path: Path) -> None:
    thread = threading.Thread(target=train, args=(tiny_bert, tmp_path / "run"))
    thread.start()
    thread.join()
    assert len(computed) == NUM_STEPS
