"""Report on a sweep again, offline: python scripts/sweep_report.py multirun/run/2026-01-31_12-00-00."""

import argparse
from pathlib import Path

from inbatch.hydra_app import user_errors
from inbatch.sweep.report import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of a --multirun")
    with user_errors():
        report(parser.parse_args().folder)


if __name__ == "__main__":
    main()
