"""How a command begins: its module is imported without collecting garbage.

What a command imports makes objects by the million. Looking for garbage among them would take a sixth of
the start, so nothing is collected until all is there, and what is there is not looked through again while
the command runs, by this process or by workers that it forks.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import Any, NoReturn

from inbatch.cluster.first_rank import end_with_first_rank
from inbatch.cluster.stop_request import EXIT_INTERRUPTED


def start(module: str, *, typed: str | None = None) -> NoReturn:
    """Run ``main`` of a module and leave with its exit code.

    Args:
        module: its name.
        typed: handed to `main`, see `inbatch.cli.main.run`.
    """
    end_with_first_rank()
    try:
        sys.exit(_imported(module).main(typed))
    except KeyboardInterrupt:
        # Ranks of one terminal are all told, and the first speaks for them.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print("stopped by Ctrl-C", file=sys.stderr, flush=True)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        # What stays frozen is not taken apart at the end, and bindings print complaints of leaks.
        gc.unfreeze()


def _imported(name: str) -> Any:
    gc.disable()
    try:
        module = import_module(name)
    finally:
        gc.enable()
    gc.freeze()
    return module
