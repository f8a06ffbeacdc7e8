"""The stages of a recipe on this machine, one after another, each as a command of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from inbatch.recipe.done import is_done, marks, write_mark
from inbatch.recipe.stages import Stage


def run_stages(stages: Sequence[Stage], output_dir: Path, *, say: Callable[[str], None]) -> int:
    """Run what has not been done yet; return the exit code of the stage that failed, or 0.

    A stage that was stopped is started by the same command and goes on as that command does.

    Raises:
        ConfigError: a stage was done with other keys; nothing has been run then.
    """
    wanted = marks(stages)
    left = [each for each in stages if not is_done(output_dir, each, wanted[each.name])]
    for number, stage in enumerate(stages, start=1):
        place = f"stage {number}/{len(stages)} {stage.name}"
        if stage not in left:
            say(f"{place}: done before")
            continue
        say(f"{place}: inbatch {stage.command} {' '.join(stage.arguments)}")
        start = time.monotonic()
        code = _command(stage)
        if code:
            say(f"{place}: ended with exit code {code}; the same command goes on from here")
            return code
        write_mark(output_dir, stage.name, wanted[stage.name])
        say(f"{place}: {timedelta(seconds=round(time.monotonic() - start))}")
    return 0


def _command(stage: Stage) -> int:
    """Exit code of a stage; as of a shell where a signal has ended it."""
    line = [sys.executable, "-m", "inbatch", stage.command, *stage.arguments]
    with _passed_on() as hand_over:
        process = subprocess.Popen(line)
        hand_over(process)
        code = process.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _passed_on() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """Pass requests to stop on to the command, which saves. A terminal tells both of Ctrl-C by itself."""
    running: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for process in running:
            if number != signal.SIGINT:
                process.send_signal(number)

    def hand_over(process: subprocess.Popen[bytes]) -> None:
        running.append(process)
        for number in asked:
            process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before: dict[int, Any] = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield hand_over
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
