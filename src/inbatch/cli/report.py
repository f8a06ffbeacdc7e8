"""`inbatch report`: table and plots of a sweep again, from its folder alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from inbatch.cli.hydra_app import user_errors
from inbatch.sweep.report import report


def main(typed: str | None = None) -> None:
    """Report on the folder of the command line; `typed` is not needed, no process repeats it."""
    parser = argparse.ArgumentParser(prog="inbatch report")
    parser.add_argument("folder", type=Path, help="folder of a --multirun")
    with user_errors():
        report(parser.parse_args().folder)
