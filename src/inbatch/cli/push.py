"""`inbatch push`: a model to the Hugging Face hub."""

from __future__ import annotations

import argparse
import shlex
import sys

from huggingface_hub.utils import disable_progress_bars

from inbatch.cli.hydra_app import user_errors
from inbatch.run.push import plan_push, push


def main(typed: str | None = None) -> None:
    """Upload as the command line says, or say what would be; `typed` is not needed, no process repeats it."""
    parser = argparse.ArgumentParser(prog="inbatch push")
    parser.add_argument("model")
    parser.add_argument("repository")
    parser.add_argument("--public", action="store_true")
    parser.add_argument("--yes", action="store_true")
    given = parser.parse_args()
    if not sys.stderr.isatty():
        disable_progress_bars()  # in a log each of their steps is a line
    with user_errors():
        print("\n".join(plan_push(given.model, given.repository, public=given.public)), flush=True)
        if given.yes:
            print(f"uploaded: {push(given.model, given.repository, public=given.public)}")
        else:
            words = ["inbatch push", shlex.quote(given.model), given.repository]
            command = " ".join([*words, *(["--public"] if given.public else []), "--yes"])
            print(f"nothing is uploaded yet; to upload these: {command}")
