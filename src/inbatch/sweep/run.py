"""Runs one trial of a sweep, records how it ended, and leaves the process as it was.

A trial with one rank runs in the process of the sweep; importing takes longer than a small run. A
trial with several ranks runs in a new process with the trial's command line: ranks are started by repeating
the command line, which must be that of the trial and not that of the sweep, and a rank that dies takes
its launcher with it, which must not be the sweep.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only

from inbatch.cluster.requeue import EXIT_PREEMPTED
from inbatch.cluster.stop_request import EXIT_INTERRUPTED, StopRequest
from inbatch.device.memory import free_memory
from inbatch.errors import ConfigError
from inbatch.folder.paths import RunFolder
from inbatch.strategies.failed_rank import lost_rank
from inbatch.sweep.trials import Result, Trial, read_result, read_trial, write_trial

_RANK = re.compile(r"^\[rank\d+\]: ?")  # torch marks the lines of several ranks
_ERROR_LINE = re.compile(r"error: |[\w.]*(Error|Exception|Interrupt)(: |$)")
_KEPT_LINES = 400


class TrialFailed(Exception):  # noqa: N818 - its message is another error's
    """A trial in a separate process has ended without a result; the message says why."""


def run_trial(
    trial: Trial, folder: Path, work: Callable[[], None], *, one_of_several: bool
) -> float | None:
    """Run a trial.

    Args:
        trial: what to run.
        folder: of the trial. A trial that has ended there with a model is not run again.
        work: runs it; leaves `result.json` in the folder.
        one_of_several: this process is one rank of the trial, which something else has started.

    Returns:
        The trial's metric; None where it failed or has no evaluation.

    Raises:
        ConfigError: the folder is that of another trial.
        Exception: what `work` has raised, for a rank among several: the others wait for it, and only
            its end ends them.
        BaseException: anything that is not an error, such as an interrupt or a request to stop.
    """
    before = read_trial(folder)
    if before is not None and before.settings != trial.settings:
        raise ConfigError(
            "hydra.sweep.subdir",
            f"gives trial {trial.number} the folder of another trial, {folder}",
            "remove it, and each trial has its own",
        )
    if before is not None and before.succeeded:
        _say_kept(before, folder)
        return before.result.value
    _start(trial, folder)
    began = time.monotonic()
    try:
        with clean_process():
            work()
        result = _rank_zero_result(folder) or trial.result
        ended = replace(trial, status="pruned" if result.pruned else "completed", result=result)
    except Exception as error:
        ended = replace(trial, status="failed", error=describe(error))
        _say(ended, error)
        if one_of_several:
            write_trial(replace(ended, seconds=_since(began)), folder)
            raise
    except BaseException:
        _write(replace(trial, status="stopped", seconds=_since(began)), folder)
        raise
    free_memory()  # what the run still holds in cycles
    _write(replace(ended, seconds=_since(began)), folder)
    return ended.result.value


def run_apart(command: Sequence[str], stop: StopRequest) -> None:
    """Run a trial's command line; what it prints is passed on, and so are requests to stop.

    It is in a process group of its own. Else a terminal would send it each Ctrl-C as well, and it would take
    the one that is passed on for a second, after which nothing is saved.

    Raises:
        TrialFailed: it has ended with another code than 0.
        SystemExit: it was asked to stop.
    """
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, errors="replace", process_group=0
    )
    assert process.stderr is not None
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        with stop.relayed_to(process.send_signal):
            for line in process.stderr:
                sys.stderr.write(line)
                kept.append(_RANK.sub("", line.rstrip()))
            code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code in (EXIT_PREEMPTED, EXIT_INTERRUPTED):
        sys.exit(code)
    if code:
        raise TrialFailed(_reason(code, kept))


def describe(error: BaseException) -> str:
    """An error in one line; the kind is left out where the message is written for users."""
    text = " ".join(str(error).split())
    if isinstance(error, ConfigError | TrialFailed):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def clean_process() -> Iterator[None]:
    """Restore everything that a run has set for the whole process: environment, determinism, open W&B run."""
    environment = dict(os.environ)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    failed = True
    try:
        yield
        failed = False
    finally:
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            wandb.finish(exit_code=int(failed))
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        os.environ.clear()
        os.environ.update(environment)


def _reason(code: int, lines: Sequence[str]) -> str:
    """The reason why a process has ended: the first error that it printed, else its exit code or signal."""
    ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    return f"{errors[0].removeprefix('error: ')} ({ended})" if errors else ended


def _say(trial: Trial, error: Exception) -> None:
    if not isinstance(error, ConfigError | TrialFailed) and lost_rank(error) is None:
        traceback.print_exception(error)
    print(f"error: trial {trial.number} failed: {trial.error}", file=sys.stderr)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)


@rank_zero_only
def _say_kept(trial: Trial, folder: Path) -> None:
    print(f"trial {trial.number} is {trial.status}, see {folder}")


@rank_zero_only
def _start(trial: Trial, folder: Path) -> None:
    RunFolder(folder).result.unlink(missing_ok=True)
    write_trial(trial, folder)


@rank_zero_only
def _rank_zero_result(folder: Path) -> Result:
    return read_result(folder)


@rank_zero_only
def _write(trial: Trial, folder: Path) -> None:
    write_trial(trial, folder)
