"""A command leaves at once, and still in order."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, gc, sys, threading, time, types
from concurrent.futures import ThreadPoolExecutor
from inbatch.cli import start as commands

atexit.register(print, "exit handler")
pool = ThreadPoolExecutor(1)  # waits for work until the interpreter ends
pool.submit(time.sleep, 0)
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()

class Kept:
    def __del__(self):
        print("taken apart")

sys.kept = Kept()

def main():
    assert gc.isenabled() and gc.get_freeze_count() > 1000
    print("main", end=" ")
    {end}

sys.modules["inbatch.cli.train"] = types.SimpleNamespace(main=main)
commands.train()
"""


@pytest.mark.parametrize(
    ("end", "code"), [("pass", 0), ("return 3", 3), ("sys.exit(4)", 4), ("sys.exit()", 0)]
)
def test_leaving_takes_nothing_apart(end: str, code: int) -> None:
    ended = _run(end)
    assert (ended.returncode, ended.stdout) == (code, "main thread\nexit handler\n"), ended.stderr


@pytest.mark.parametrize(("end", "said"), [("sys.exit('why')", "why"), ("1 / 0", "ZeroDivision")])
def test_other_ends_are_the_interpreters(end: str, said: str) -> None:
    ended = _run(end)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "exit handler" in ended.stdout


def _run(end: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", PROGRAM.replace("{end}", end)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
