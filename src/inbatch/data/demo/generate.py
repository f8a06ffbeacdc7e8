"""The demo's data as `data.generate` of conf/data/demo.yaml writes it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from inbatch.data.demo.catalogue import write_demo


def generate_demo(folder: str) -> None:
    """Write the demo's files below a folder, unless they are there.

    Every process that finds none writes the same files beside the folder and then moves them into place.
    So none waits for another, and nobody reads half a file, whether or not nodes share the folder.
    """
    path, last = Path(folder), Path("retrieval") / "qrels.parquet"
    if (path / last).exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="demo-", dir=path.parent) as beside:
        fresh = Path(beside) / path.name
        write_demo(fresh)
        try:
            fresh.rename(path)  # onto a folder that holds files it fails
            return
        except OSError:
            if (path / last).exists():  # another process has been faster
                return
        (path / last).parent.mkdir(parents=True, exist_ok=True)  # a killed process has left a part
        names = [file.relative_to(fresh) for file in fresh.rglob("*") if file.is_file()]
        for name in sorted(names, key=lambda name: name == last):
            os.replace(fresh / name, path / name)
