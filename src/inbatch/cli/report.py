"""`inbatch report`: table and plots of a sweep again, from its folder alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from inbatch.errors import ConfigError
from inbatch.sweep.report import report


def main(typed: str | None = None) -> int:
    """Report on the folder of the command line; `typed` is not needed, no process repeats it."""
    parser = argparse.ArgumentParser(prog="inbatch report")
    parser.add_argument("folder", type=Path, help="folder of a --multirun")
    folder = parser.parse_args().folder
    try:
        report(folder)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
