"""Processes in sessions of their own that share what this one has imported, which takes seconds to import."""

from __future__ import annotations

import atexit
import gc
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import torch

from helpers.forked_command import printed_into


class ForkedProcess:
    """A function in a forked process; what `subprocess.Popen` has of it."""

    def __init__(self, function: Callable[..., None], *args: Any) -> None:
        self._process = get_context("fork").Process(target=_lead, args=(function, *args))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutExpired(self._process.name, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill_session(self) -> None:
        """Kill it and what it has started."""
        os.killpg(self.pid, signal.SIGKILL)
        self._process.join()


def run_script(line: Sequence[str], folder: Path, log: Path, variables: Mapping[str, str]) -> None:
    """Do what a new process would that runs a script, from the script on."""
    os.chdir(folder)
    os.environ.update(variables)
    sys.argv = [*line[1:]]
    torch.set_num_threads(1)
    atexit._clear()  # what is there is the parent's
    code: Any = 0
    with printed_into(log):
        try:
            runpy.run_path(line[1], run_name="__main__")
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            code = 1
        atexit._run_exitfuncs()
    os._exit(code)


def _lead(function: Callable[..., None], *args: Any) -> None:
    os.setsid()
    gc.freeze()
    function(*args)
