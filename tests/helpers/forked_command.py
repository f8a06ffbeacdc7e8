"""Commands in forked processes: whole, but for the import of their libraries."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from helpers.runs import TINY
from inbatch.cli.train import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Left:
    """How a rank has left the command."""

    code: int
    error: str | None  # what it raised, where that is no exit
    said: str
    at_s: float  # on a clock that all ranks share


@contextmanager
def printed_into(log: Path) -> Iterator[None]:
    """Have a file take what this process prints, its libraries and what it starts included."""
    with log.open("w", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        yield


def train_command(rank: int, world_size: int, folder: Path, *overrides: str) -> Left:
    """Run `inbatch train` in `folder`, as a rank; for `helpers.distributed.run`."""
    os.chdir(folder)
    sys.argv = [str(ROOT / "scripts" / "train.py"), *TINY, *overrides]
    log = folder / f"rank-{rank}.log"
    code, error = 0, None
    with printed_into(log):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        except Exception as raised:
            code, error = 1, repr(raised)
    return Left(code, error, log.read_text(), time.monotonic())
