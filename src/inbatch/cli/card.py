"""`inbatch card`: the model card of a finished run again, from its directory alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from inbatch.cli.hydra_app import user_errors
from inbatch.export.card_record import rewrite_run_card
from inbatch.folder.paths import RunFolder


def main(typed: str | None = None) -> None:
    """Write the card that the command line names; `typed` is not needed, no process repeats it."""
    parser = argparse.ArgumentParser(prog="inbatch card")
    parser.add_argument("run", type=Path)
    parser.add_argument("--overwrite", action="store_true")
    given = parser.parse_args()
    with user_errors():
        print(f"written: {rewrite_run_card(RunFolder(given.run), overwrite=given.overwrite)}")
