"""The progress of a tiny run: plain lines without control characters, one line on a terminal."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from rich.console import Console
from torch.utils.data import DataLoader

from helpers.distributed import bare_trainer, run
from helpers.watched_run import WatchedModule, fit, log_console, terminal
from inbatch.callbacks.pauses import pause
from inbatch.callbacks.progress import Position, Progress
from inbatch.callbacks.step_log import StepLog
from inbatch.console import LiveLine

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class EvaluateAt(Callback):
    """Pauses at the start and after some steps."""

    def __init__(self, *steps: int) -> None:
        self._steps = steps

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if 0 in self._steps:
            self._evaluate(trainer)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step in self._steps:
            self._evaluate(trainer)

    def _evaluate(self, trainer: Trainer) -> None:
        with pause(trainer, "evaluate") as results:
            results["eval/sts"] = 0.5 + trainer.global_step / 100


def shown_by(*, every_steps: int = 10, **settings: Any) -> list[Callback]:
    """The callbacks that show progress."""
    log = StepLog(every_steps=every_steps)
    return [log, Progress(log, **settings)]


def plain_run(module: WatchedModule, *callbacks: Callback, **settings: Any) -> list[str]:
    console, stream = log_console()
    fit(module, *callbacks, *shown_by(console=console, **settings))
    return stream.getvalue().splitlines()


def test_plain_lines_every_n_steps() -> None:
    lines = plain_run(WatchedModule(total_steps=12), every_steps=5, min_interval_s=0)
    assert [re.search(r"step (\d+)/12", line).group(1) for line in lines] == ["1", "5", "10", "12"]  # type: ignore[union-attr]
    # losses are 1, 2, 3, ...: shown are their means since the line before, which are the log's rows
    start, speed, unit = lines[1].rpartition("e-01  ")[0], *lines[1].split()[-2:]
    assert start == "train  epoch 0.83/2  step 5/12  left 0:00:00  loss 3.5000  lr 5.00"
    assert float(speed.replace(",", "")) > 0
    assert unit == "samples/s"
    assert "epoch 2.00/2  step 12/12  left 0:00:00  loss 11.5000" in lines[-1]


def _lines_of_a_rank(rank: int, world_size: int) -> list[str]:
    module = WatchedModule(total_steps=12)
    module.num_batches = 10 * rank  # batch t has the loss t + 10 on rank 1
    console, stream = log_console()
    callbacks = shown_by(console=console, every_steps=5, min_interval_s=0)
    trainer = bare_trainer(world_size, max_epochs=2, callbacks=callbacks, enable_progress_bar=True)
    trainer.fit(module, DataLoader(list(torch.zeros(6 * world_size, 1)), batch_size=1))
    return stream.getvalue().splitlines()


def test_the_loss_is_that_of_all_ranks() -> None:
    lines, none = run(_lines_of_a_rank, 2)
    assert [re.search(r"step (\d+)/12 .* loss (\S+)", line).groups() for line in lines] == [  # type: ignore[union-attr]
        *(("1", "6.0000"), ("5", "8.5000"), ("10", "13.0000"), ("12", "16.5000"))
    ]
    assert none == []


def test_plain_output_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """On the process's own standard output, as in a log file."""
    fit(WatchedModule(total_steps=12), *shown_by(every_steps=4, min_interval_s=0), EvaluateAt(4))
    captured = capsys.readouterr().out
    assert captured.count("\n") == 5  # steps 1, 4, 8, 12 and the evaluation
    assert all(character.isprintable() or character == "\n" for character in captured)


def test_plain_lines_are_throttled() -> None:
    lines = plain_run(WatchedModule(total_steps=12), every_steps=1, min_interval_s=60)
    assert ["step 1/12" in lines[0], "step 12/12" in lines[1], len(lines)] == [True, True, 2]


def test_accumulated_batches_are_one_step() -> None:
    module = WatchedModule(total_steps=6, accumulate=2)
    lines = plain_run(module, every_steps=3, min_interval_s=0)
    shown = [re.search(r"(step \d/6) .*  (loss \S+)", line) for line in lines]
    assert [match.groups() for match in shown if match] == [
        ("step 1/6", "loss 1.5000"),
        ("step 3/6", "loss 4.5000"),
        ("step 6/6", "loss 9.5000"),
    ]


def test_evaluation_is_shown() -> None:
    lines = plain_run(
        WatchedModule(total_steps=12), EvaluateAt(0, 6), every_steps=6, min_interval_s=0
    )
    shown = [line for line in lines if line.startswith("evaluate")]
    assert shown == [
        "evaluate  step 0  eval/sts 0.5000  took 0:00:00",
        "evaluate  step 6  eval/sts 0.5600  took 0:00:00",
    ]


def test_terminal_has_one_line() -> None:
    console, stream = terminal()
    fit(WatchedModule(total_steps=12), *shown_by(console=console), EvaluateAt(6))
    frames = stream.getvalue()
    assert "\x1b[" in frames
    kept = re.split(r"\r|\n", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frames))
    assert any(frame.startswith("evaluate") for frame in kept)
    assert "evaluate  step 6  eval/sts 0.5600  took 0:00:00" in "".join(kept)
    last = [frame for frame in kept if frame.strip()][-1]
    assert "train" in last
    assert "step 12/12" in last
    assert frames.count("\n") == 2  # below the evaluation's result, and below the line at the end
    assert frames.endswith("\x1b[?25h")  # the cursor is back


def test_an_error_gives_the_terminal_back() -> None:
    console, stream = terminal()
    with pytest.raises(RuntimeError, match="broken step"):
        fit(WatchedModule(total_steps=12, fail_at=4), *shown_by(console=console))
    assert stream.getvalue().endswith("\x1b[?25h")


def test_other_ranks_show_nothing() -> None:
    console, stream = log_console()
    log = StepLog(every_steps=1)
    progress = Progress(log, console=console, min_interval_s=0)
    progress.disable()
    fit(WatchedModule(total_steps=12), log, progress, EvaluateAt(6))
    progress.print("hello")
    assert stream.getvalue() == ""
    progress.enable()
    progress.print("hello", 3)
    assert stream.getvalue() == "hello 3\n"


def _position(step: int, total: int) -> Position:
    return Position(
        step=step,
        total_steps=total,
        epoch=1.25,
        num_epochs=3,
        learning_rate=1.2e-5,
        loss=0.12344,
        samples_per_s=1811.6,
        seconds_per_step=2.0,
    )


def test_position() -> None:
    assert str(_position(50, 120)) == (
        "epoch 1.25/3  step 50/120  left 0:02:20  loss 0.1234  lr 1.20e-05  1,812 samples/s"
    )
    early = Position(step=0, total_steps=9, epoch=0.0, num_epochs=None, learning_rate=0.0)
    assert str(early) == "epoch 0.00  step 0/9  left 0:00:00  lr 0.00e+00"


@pytest.mark.parametrize(("step", "total"), [(50, 120), (1250, 10_000), (123_456, 1_000_000)])
def test_a_narrow_terminal_shows_whole_words(step: int, total: int) -> None:
    position = _position(step, total)
    lengths = [len(form) for form in position.forms()]
    assert lengths == sorted(lengths, reverse=True)
    for width in (140, 100, 80, 60, 40):
        stream = StringIO()
        console = Console(file=stream, highlight=False, force_terminal=True, width=width)
        display = LiveLine(console)
        display.show("train", position.forms(), share=step / total)
        display.wait("evaluate")
        display.close()
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
        lines = [line.rstrip() for line in re.split(r"\r|\n", plain) if "loss" in line]
        assert {line.split()[0] for line in lines} == {"train", "evaluate"}
        for line in lines:
            assert len(line) <= width
            assert line.endswith("1,812 samples/s")
            assert "loss 0.1234" in line
            assert width < 80 or f"step {step}/{total}" in line
