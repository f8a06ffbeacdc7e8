"""The entry point that reports on a sweep again, from its folder alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from inbatch.cli.hydra_app import user_errors
from inbatch.sweep.report import report


def main() -> None:
    """`python scripts/sweep_report.py FOLDER`."""
    parser = argparse.ArgumentParser(
        prog="sweep_report.py", description="Report on a sweep again, offline."
    )
    parser.add_argument("folder", type=Path, help="folder of a --multirun")
    with user_errors():
        report(parser.parse_args().folder)
