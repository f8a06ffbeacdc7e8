"""How a command begins and ends: quickly.

What a command imports makes objects by the million. Looking for garbage among them would take a sixth of
the start, so nothing is collected until all is there, and what is there is not looked through again while
the command runs, by this process or by workers that it forks. Nor are they taken apart at the end, which
would take longer than most commands that only check something: the system frees them all at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from inbatch.cluster.first_rank import end_with_first_rank
from inbatch.cluster.stop_request import EXIT_INTERRUPTED
from inbatch.compat import (
    load_dynamo_when_needed,
    load_flop_counter_when_needed,
    load_part_of_scipy_optimize,
    load_part_of_torchmetrics,
    read_models_once,
)


def start(module: str, *, typed: str | None = None, without_torch: bool = False) -> NoReturn:
    """Run ``main`` of a module and leave with its exit code.

    Args:
        module: its name.
        typed: handed to `main`, see `inbatch.cli.main.run`.
        without_torch: it imports no torch, so nothing of it is made ready.
    """
    end_with_first_rank()
    leaving = _Leaving()
    atexit.register(leaving)  # before those of all imports, so it is called after them
    try:
        leaving.code = _imported(module, without_torch).main(typed) or 0
    except SystemExit as ended:
        leaving.code = ended.code or 0
    except KeyboardInterrupt:
        # Ranks of one terminal are all told, and the first speaks for them.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print("stopped by Ctrl-C", file=sys.stderr, flush=True)
        leaving.code = EXIT_INTERRUPTED
    except BaseException:
        gc.unfreeze()  # this process ends slowly, and bindings would complain of leaks
        raise
    sys.exit(leaving.code)


class _Leaving:
    """Ends the process, after its threads have ended and its imports have done what they do at an exit."""

    def __init__(self) -> None:
        self.code: int | str | None = None  # as of `SystemExit`; None while the command runs

    def __call__(self) -> None:
        if isinstance(self.code, int):
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):
                    stream.flush()
            os._exit(self.code)


def _imported(name: str, without_torch: bool) -> Any:
    gc.disable()
    try:
        if not without_torch:
            load_dynamo_when_needed()
            load_flop_counter_when_needed()
            load_part_of_torchmetrics()
            load_part_of_scipy_optimize()
            read_models_once()
        module = import_module(name)
    finally:
        gc.enable()
    gc.freeze()
    return module
