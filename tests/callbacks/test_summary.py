"""The table before the first step and the summary after the last."""

from __future__ import annotations

import pytest

from helpers.watched_run import WatchedModule, fit, log_console
from inbatch.callbacks.progress import Progress
from inbatch.callbacks.step_log import StepLog
from inbatch.callbacks.summary import Summary
from inbatch.export.card_sections import in_words


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_run_from_table_to_summary() -> None:
    console, stream = log_console()
    module = WatchedModule(total_steps=12)
    module.table.requires_grad_(False)
    rows = {"loss": {"name": "mnrl"}, "run": {"precision": "float32: this CPU is old"}}
    summary = Summary(rows, step_flop=2e12, console=console)
    log = StepLog()
    trainer = fit(module, summary, log, Progress(log, console=console))
    summary.show(
        trainer,
        before={"sts": 0.7},
        after={"sts": 0.81},
        facts={"best eval/sts": "0.81"},
        paths={"model": "out/model"},
    )
    lines = stream.getvalue().splitlines()
    first_step = next(i for i, line in enumerate(lines) if "step 1/12" in line)
    assert lines[first_step - 1].startswith("run.estimated step: 2 TFLOP per rank, at least ")
    assert lines[: first_step - 1] == [
        "loss.name: mnrl",
        "run.steps: 12",
        "run.batches per epoch: 6",
        "run.ranks: 1",
        "run.device: cpu",
        "run.parameters: 2 of 42 train",
        "run.precision: float32: this CPU is old",
    ]
    last_step = max(i for i, line in enumerate(lines) if "step 12/12" in line)
    assert lines[last_step + 1 : last_step + 3] == [
        "metric  before   after",
        "sts     0.7000  0.8100",
    ]
    names = [line.split(":")[0] for line in lines[last_step + 3 :]]
    assert names == [
        *(
            "steps",
            "rows",
            "time",
            "peak memory",
            "best eval/sts",
            "model",
        )
    ]
    assert lines[last_step + 3] == "steps: 12"
    assert lines[last_step + 4].startswith("rows: 96, ")
    assert lines[last_step + 5] == f"time: {in_words(summary.training_s)} of training"
