"""`inbatch`: one command for everything, which finds the command asked for and hands over to it.

Nothing heavy is imported here, so that help and mistakes in the command's name answer at once.
"""

from __future__ import annotations

import os
import re
import sys
from typing import NoReturn

from inbatch import __version__
from inbatch.cli.commands import COMMANDS
from inbatch.cli.start import start
from inbatch.errors import did_you_mean

HELP = ("-h", "--help")


def main() -> NoReturn:
    """Run ``inbatch COMMAND ...``; without a command, ``inbatch key=value ...`` trains.

    The ranks that Lightning starts repeat the command line, so the command stays in `sys.argv` while it
    runs, see `hydra_app.launch`.
    """
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if first in (*HELP, "help"):
        from inbatch.cli.help import overview

        _show(overview())
    if first == "--version":
        print(f"inbatch {__version__}")
        sys.exit(0)
    if first in COMMANDS:
        del sys.argv[1]
        run(first, typed=first)
    if re.fullmatch(r"[A-Za-z_-]*", first) and not first.startswith("-"):
        fix = did_you_mean(first, COMMANDS) or f"use one of {', '.join(COMMANDS)}"
        print(f"error: {first} is not a command: {fix}", file=sys.stderr)
        sys.exit(1)
    run("train")


def train() -> NoReturn:
    """Run ``inbatch-train``."""
    run("train")


def evaluate() -> NoReturn:
    """Run ``inbatch-evaluate``."""
    run("evaluate")


def run(name: str, *, typed: str | None = None) -> NoReturn:
    """Run a command on the arguments in `sys.argv`, and end the process with its exit code.

    Args:
        name: one of `COMMANDS`.
        typed: the command as it stood in the command line; None where the program's name implies it.
    """
    if not {*HELP}.isdisjoint(sys.argv[1:]):
        from inbatch.cli.help import command_help

        _show(command_help(name))
    command = COMMANDS[name]
    start(command.module, typed=typed, without_torch=command.without_torch)


def _show(text: str) -> NoReturn:
    """Print a text and leave, silently where its reader (`head`, a pager) has left before."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # which takes what is buffered
    sys.exit(0)
