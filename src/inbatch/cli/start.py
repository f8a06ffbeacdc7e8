"""How a command begins: its module is imported without collecting garbage.

What a command imports makes objects by the million. Looking for garbage among them would take a sixth of
the start, so nothing is collected until all is there, and what is there is not looked through again while
the command runs, by this process or by workers that it forks.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any, NoReturn


def start(module: str, *, typed: str | None = None) -> NoReturn:
    """Run ``main`` of a module and leave with its exit code.

    Args:
        module: its name.
        typed: handed to `main`, see `inbatch.cli.main.run`.
    """
    main = _imported(module).main
    try:
        sys.exit(main(typed))
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
