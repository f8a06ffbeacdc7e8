"""Console commands, which `scripts/` calls too: how a process begins and how it leaves.

What a command imports makes objects by the million. Looking for garbage among them would take a sixth of
the start, so nothing is collected until all is there, and what is there is never looked through
again, by this process or by workers that it forks. Taking them apart one by one would add two seconds to
the end, so a process leaves once threads, exit handlers and output are done with.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from importlib import import_module
from typing import Any, NoReturn


def train() -> NoReturn:
    """`inbatch-train`."""
    run("train")


def evaluate() -> NoReturn:
    """`inbatch-evaluate`."""
    run("evaluate")


def run(name: str) -> NoReturn:
    """Run `main` of an entry point, a module of this package, and end the process with its exit code."""
    main = _imported(f"inbatch.cli.{name}").main
    try:
        code = main()
    except BaseException as end:
        # The interpreter prints what it is; bindings complain of what it then finds frozen.
        if not (isinstance(end, SystemExit) and isinstance(end.code, int | None)):
            gc.unfreeze()
            raise
        code = end.code
    _leave(code or 0)


def _leave(code: int) -> NoReturn:
    """End the process as the interpreter would, but for taking every object apart."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _imported(name: str) -> Any:
    gc.disable()
    try:
        module = import_module(name)
    finally:
        gc.enable()
    gc.freeze()
    return module
