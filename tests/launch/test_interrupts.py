"""Ctrl-C: the run saves its step and says how to go on; a second one leaves at once; nothing is left over."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from helpers.faults import fault
from helpers.launching import ROOT, Started, command, started
from helpers.runs import TINY
from inbatch.sweep.trials import read_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
LONG = ("trainer.max_epochs=100000", "trainer.max_steps=100000")
NOTED = "stopping after this step; Ctrl-C again leaves at once"


def line_of(num_ranks: int, *overrides: str) -> list[str]:
    line = [sys.executable, str(ROOT / "scripts" / "train.py"), *TINY, *overrides]
    return [*line, f"trainer.devices={num_ranks}"]


def ends_with(run: Started, sentence: str) -> None:
    said = run.log.read_text()
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith(sentence), said


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_ctrl_c_in_a_step_saves_it(training: list[str], tmp_path: Path, num_ranks: int) -> None:
    output = tmp_path / "run"
    line = line_of(num_ranks, *training, *LONG, f"output_dir={output}")
    with started(tmp_path, line) as run:
        run.wait_until(lambda: run.says("step 1/"))
        run.press_ctrl_c()
        assert run.end() == 130, run.log.read_text()
        assert run.says(NOTED)
        last = output / "checkpoints" / "last.ckpt"
        ends_with(run, f", which {last} holds; the same command resumes from there")
        assert last.exists()


def test_a_second_ctrl_c_leaves_at_once(training: list[str], tmp_path: Path) -> None:
    """Rank 0 never ends its step, and rank 1 waits for it."""
    rows = tmp_path / "run" / "metrics.jsonl"
    waits = [*fault("wait", step=3), f"output_dir={rows.parent}"]
    with started(tmp_path, line_of(2, *training, *waits)) as run:
        run.wait_until(lambda: rows.exists() and rows.read_text().count("\n") == 3)
        run.press_ctrl_c()
        run.wait_until(lambda: run.says(NOTED))
        run.press_ctrl_c()
        assert run.end() == 130, run.log.read_text()
        ends_with(run, "stopped by Ctrl-C at once; nothing is saved")


def test_ctrl_c_while_libraries_are_imported(training: list[str], tmp_path: Path) -> None:
    with started(tmp_path, command("lightning", *training)) as run:
        maps = Path(f"/proc/{run.process.pid}/maps")
        run.wait_until(lambda: "libtorch_cpu" in maps.read_text())
        run.press_ctrl_c()
        assert run.end() == 130, run.log.read_text()
        ends_with(run, "stopped by Ctrl-C")


def test_ctrl_c_ends_a_sweep(training: list[str], tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    line = line_of(2, *training, *LONG, "-m", "seed=1,2", f"hydra.sweep.dir={sweep}")
    with started(tmp_path, line) as run:
        run.wait_until(lambda: run.says("step 1/"))
        run.press_ctrl_c()
        assert run.end() == 130, run.log.read_text()
        ends_with(run, f"holds; the same command with hydra.sweep.dir={sweep} goes on from there")
        assert [trial.status for trial in read_trials(sweep).values()] == ["stopped"]
        assert (sweep / "0" / "checkpoints" / "last.ckpt").exists()


def test_a_ctrl_c_that_comes_too_late_for_a_trial_ends_the_sweep(
    training: list[str], tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    line = line_of(1, *training, *fault("SIGINT", step=8), "-m", "seed=1,2")
    with started(tmp_path, [*line, f"hydra.sweep.dir={sweep}"]) as run:
        assert run.end() == 130, run.log.read_text()
        ends_with(
            run, f"after trial 0; the same command with hydra.sweep.dir={sweep} goes on from there"
        )
        assert [trial.status for trial in read_trials(sweep).values()] == ["completed"]


def test_a_run_in_the_background_of_a_script_is_left_alone(
    training: list[str], tmp_path: Path
) -> None:
    """A shell lets its background ignore the Ctrl-C that is meant for the foreground."""
    train = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    with started(tmp_path, [*train, *line_of(1, *training)]) as run:
        run.wait_until(lambda: run.says("step 1/"))
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0, run.log.read_text()
