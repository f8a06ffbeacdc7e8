"""A recipe as a user runs it: stopped inside a stage, and started again."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from helpers.faults import fault
from helpers.launching import run, started
from helpers.recipes import STEPS, of_stage, write_recipe
from helpers.runs import metrics


@pytest.mark.slow
def test_a_stopped_recipe_goes_on_in_its_stage(tmp_path: Path) -> None:
    path, options = write_recipe(tmp_path)
    line = [sys.executable, "-m", "inbatch", "recipe", str(path), *options]
    out = tmp_path / "out"
    held = of_stage("second", fault("hold", step=2))
    with started(tmp_path, [*line, *held]) as running:
        rows = out / "second" / "metrics.jsonl"
        running.wait_until(lambda: rows.exists() and rows.read_text().count("\n") >= 2)
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.end() != 0
        assert running.says("stage 2/2 second: ended with exit code")
    assert sorted(each.name for each in (out / "recipe").iterdir()) == ["first.json"]

    ended = run(line, folder=tmp_path, within_s=600)
    assert ended.code == 0, ended.output
    assert "stage 1/2 first: done before" in ended.output
    assert "step 1/4" not in ended.output, "it goes on from its checkpoint"
    trained = [row["step"] for row in metrics(out / "second") if "train/loss" in row]
    assert trained == list(range(1, STEPS + 1))
    assert (out / "second" / "model" / "README.md").exists()
    assert sorted(each.name for each in (out / "recipe").iterdir()) == ["first.json", "second.json"]
