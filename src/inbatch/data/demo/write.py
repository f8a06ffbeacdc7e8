"""Writes the demo's files once, however many processes start at the same time."""

from __future__ import annotations

from pathlib import Path

from inbatch.data.demo.catalogue import write_demo
from inbatch.files import new_folder, write_bytes


def write_demo_once(folder: Path) -> None:
    """Write the demo's files into `folder`, unless they are there.

    Each process that finds no demo writes the same files; the first one puts them in place. So no process
    waits for another, whether or not nodes share the folder.
    """
    last = Path("retrieval") / "qrels.parquet"
    if (folder / last).exists():
        return
    with new_folder(folder) as fresh:
        write_demo(fresh)
        if folder.exists():  # a folder that lacks some of the files is completed
            names = [path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()]
            for name in sorted(names, key=lambda name: name == last):
                write_bytes(folder / name, (fresh / name).read_bytes())
