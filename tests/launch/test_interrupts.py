"""Ctrl-C: the run saves its step and says how to go on; a second one leaves at once; nothing is left over."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from helpers.distributed import run as run_ranks
from helpers.faults import fault
from helpers.forked_command import Left, train_command
from helpers.launching import Started, command, started
from helpers.runs import metrics
from inbatch.sweep.trials import read_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
LONG = ("trainer.max_epochs=100000", "trainer.max_steps=100000")
NOTED = "stopping after this step; Ctrl-C again leaves at once"


def ends_with(run: Started, sentence: str) -> None:
    said = run.log.read_text()
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith(sentence), said


def test_ctrl_c_in_a_step_saves_it(training: list[str], tmp_path: Path) -> None:
    output = tmp_path / "run"
    line = command("lightning", *training, *LONG, f"output_dir={output}")
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
    with started(tmp_path, command("lightning", *training, *waits)) as run:
        run.wait_until(lambda: rows.exists() and rows.read_text().count("\n") == 3)
        run.press_ctrl_c()
        run.wait_until(lambda: run.says(NOTED))
        run.press_ctrl_c()
        assert run.end() == 130, run.log.read_text()
        ends_with(run, "stopped by Ctrl-C at once; nothing is saved")


def test_ctrl_c_while_libraries_are_imported(training: list[str], tmp_path: Path) -> None:
    with started(tmp_path, command("lightning", *training), new=True) as run:
        maps = Path(f"/proc/{run.process.pid}/maps")
        run.wait_until(lambda: "libtorch_cpu" in maps.read_text())
        run.press_ctrl_c()
        assert run.end() == 130, run.log.read_text()
        ends_with(run, "stopped by Ctrl-C")


@pytest.mark.exhaustive
def test_ctrl_c_ends_a_sweep(training: list[str], tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    trials = ["-m", "seed=1,2", f"hydra.sweep.dir={sweep}"]
    line = command("lightning", *training, *LONG, *trials)
    with started(tmp_path, line) as run:
        run.wait_until(lambda: run.says("step 1/"))
        run.press_ctrl_c()
        assert run.end() == 130, run.log.read_text()
        ends_with(run, f"holds; the same command with hydra.sweep.dir={sweep} goes on from there")
        trials_run = [trial.status for trial in read_trials(sweep).values()]
        assert trials_run == ["stopped"], run.log.read_text()
        assert (sweep / "0" / "checkpoints" / "last.ckpt").exists()


def test_a_ctrl_c_that_comes_too_late_for_a_trial_ends_the_sweep(
    training: list[str], tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    trials = ["-m", "seed=1,2", f"hydra.sweep.dir={sweep}"]
    options = [*training, *fault("SIGINT", step=8), *trials]
    [left] = run_ranks(train_command, 1, tmp_path, *options)
    assert (left.code, left.error) == (130, None), left.said
    assert "Traceback" not in left.said
    assert left.said.splitlines()[-1].endswith(
        f"after trial 0; the same command with hydra.sweep.dir={sweep} goes on from there"
    )
    assert [trial.status for trial in read_trials(sweep).values()] == ["completed"]


def in_background(rank: int, world_size: int, folder: Path, *overrides: str) -> Left:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return train_command(rank, world_size, folder, *overrides)


def test_a_run_in_the_background_of_a_script_is_left_alone(
    training: list[str], tmp_path: Path
) -> None:
    """A shell lets its background ignore the Ctrl-C that is meant for the foreground."""
    options = [*training, *fault("SIGINT", step=3), f"output_dir={tmp_path / 'run'}"]
    [left] = run_ranks(in_background, 1, tmp_path, *options)
    assert (left.code, left.error) == (0, None), left.said
    assert [row["step"] for row in metrics(tmp_path / "run")] == list(range(1, 9))
