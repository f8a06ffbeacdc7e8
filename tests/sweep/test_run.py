"""One trial: how it ends is written down, and the process is left as it was."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from inbatch.cluster.stop_request import StopRequest
from inbatch.errors import ConfigError
from inbatch.sweep.run import TrialFailed, run_apart, run_trial
from inbatch.sweep.trials import Result, Trial, read_trial, write_result

TRIAL = Trial(number=4, overrides=("++optimizer.lr=0.1",))


def test_completed(tmp_path: Path) -> None:
    def work() -> None:
        assert read_trial(tmp_path) == TRIAL  # known while it runs, in case it is killed
        write_result(Result(metric="dev", value=0.5, step=7), tmp_path)

    assert run_trial(TRIAL, tmp_path, work, one_of_several=False) == 0.5
    trial = read_trial(tmp_path)
    assert trial is not None
    assert (trial.status, trial.result.step, trial.parameters) == (
        "completed",
        7,
        {"optimizer.lr": "0.1"},
    )
    assert trial.seconds is not None


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            ConfigError("lr", "is not\nabove 0", "set a number above 0", value=-1),
            "lr=-1 is not above 0: set a number above 0",
        ),
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        (KeyError(), "KeyError"),
    ],
)
def test_failed(tmp_path: Path, error: Exception, text: str) -> None:
    def work() -> None:
        raise error

    write_result(Result(value=0.9), tmp_path)  # of an earlier start
    assert run_trial(TRIAL, tmp_path, work, one_of_several=False) is None
    trial = read_trial(tmp_path)
    assert trial is not None
    assert (trial.status, trial.error, trial.result.value) == ("failed", text, None)


@pytest.mark.parametrize("pruned", [False, True])
def test_a_trial_that_has_ended_is_kept(
    tmp_path: Path, pruned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        write_result(Result(metric="dev", value=0.5, step=7, pruned=pruned), tmp_path)

    run_trial(TRIAL, tmp_path, work, one_of_several=False)
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    again = Trial(number=9, overrides=("optimizer.lr=1e-1",))  # the same, in other words
    assert run_trial(again, tmp_path, pytest.fail, one_of_several=False) == 0.5
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files
    status = "pruned" if pruned else "completed"
    assert capsys.readouterr().out == f"trial 4 is {status}, see {tmp_path}\n"


def test_the_folder_of_another_trial_is_left_alone(tmp_path: Path) -> None:
    run_trial(
        TRIAL, tmp_path, lambda: write_result(Result(value=0.5), tmp_path), one_of_several=False
    )
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    other = Trial(number=4, overrides=("optimizer.lr=0.2",))
    with pytest.raises(ConfigError, match=r"^hydra.sweep.subdir gives trial 4 the folder of"):
        run_trial(other, tmp_path, pytest.fail, one_of_several=False)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_rank_among_several_ends(tmp_path: Path) -> None:
    def work() -> None:
        raise RuntimeError("one rank")

    with pytest.raises(RuntimeError, match="one rank"):
        run_trial(TRIAL, tmp_path, work, one_of_several=True)
    trial = read_trial(tmp_path)
    assert trial is not None
    assert trial.status == "failed"


def test_request_to_stop_ends_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        run_trial(TRIAL, tmp_path, lambda: sys.exit(75), one_of_several=False)
    trial = read_trial(tmp_path)
    assert trial is not None
    assert trial.status == "stopped"


def test_process_is_left_clean(tmp_path: Path) -> None:
    def work() -> None:
        os.environ["WANDB_MODE"] = "dryrun"
        os.environ["LEFT"] = "over"
        torch.use_deterministic_algorithms(True)
        raise RuntimeError

    before = dict(os.environ)
    run_trial(TRIAL, tmp_path, work, one_of_several=False)
    assert dict(os.environ) == before
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('bad lr')", r"^ValueError: bad lr \(exit code 1\)"),
        (
            "import sys; print('Error executing job', '[rank1]: a.b.OOMError: gone', "
            "'[rank0]: RuntimeError: peer', sep='\\n', file=sys.stderr); sys.exit(1)",
            r"^a.b.OOMError: gone \(exit code 1\)",
        ),
        ("import sys; print('error: no file', file=sys.stderr); sys.exit(2)", r"^no file \(exit"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_other_process_says_why(code: str, reason: str) -> None:
    with pytest.raises(TrialFailed, match=reason):
        run_apart([sys.executable, "-c", code], StopRequest())


@pytest.mark.parametrize("code", [75, 130])
def test_other_process_that_was_asked_to_stop(code: int) -> None:
    with pytest.raises(SystemExit):
        run_apart([sys.executable, "-c", f"import sys; sys.exit({code})"], StopRequest())


@pytest.mark.parametrize(("name", "code"), [("SIGUSR1", 75), ("SIGINT", 130)])
def test_request_to_stop_is_passed_on_once(name: str, code: int) -> None:
    counting = (
        "import os, signal, sys, time; got = [];"
        f"signal.signal(signal.{name}, lambda *_: got.append(1));"
        f"os.kill(os.getppid(), signal.{name})\n"
        "while not got: time.sleep(0.01)\n"
        f"sys.exit({code} if len(got) == 1 and os.getpgid(0) == os.getpid() else 1)"
    )
    with StopRequest() as stop, pytest.raises(SystemExit) as ended:
        run_apart([sys.executable, "-c", counting], stop)
    assert (ended.value.code, stop.number) == (code, signal.Signals[name])
