"""Writes the demo's files once, however many processes start at the same time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from inbatch.data.demo.catalogue import write_demo


def write_demo_once(folder: Path) -> None:
    """Write the demo's files into `folder`, unless they are there.

    Every process that finds none writes the same files to a temporary folder and moves them into place.
    So none waits for another, and nobody reads half a file, whether or not nodes share the folder.
    """
    last = Path("retrieval") / "qrels.parquet"
    if (folder / last).exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="demo-", dir=folder.parent) as beside:
        fresh = Path(beside) / folder.name
        write_demo(fresh)
        try:
            fresh.rename(folder)  # fails if the folder exists and holds files
            return
        except OSError:
            if (folder / last).exists():  # another process was faster
                return
        (folder / last).parent.mkdir(parents=True, exist_ok=True)  # left by a killed process
        names = [path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()]
        for name in sorted(names, key=lambda name: name == last):
            os.replace(fresh / name, folder / name)
