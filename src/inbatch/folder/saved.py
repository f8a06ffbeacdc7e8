"""The checkpoints in a folder: which there are, which are whole, and which is the newest.

A checkpoint is a file of torch, or a folder of such files from a strategy that writes shards. Each file is a
zip archive with a checksum of every entry. A folder lists its files in a manifest, which is written last.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from inbatch.files import UNFINISHED, write_json

MANIFEST = "inbatch.json"
LAST = "last.ckpt"
_STEP = re.compile(r"step-(\d+)\.ckpt")


class Broken(NamedTuple):
    """A checkpoint that cannot be read."""

    path: Path
    problem: str

    def __str__(self) -> str:
        """As ``step-00000012.ckpt is cut off``."""
        return f"{self.path.name} {self.problem}"


class Newest(NamedTuple):
    """The newest whole checkpoint of a folder, and those after it that are broken."""

    path: Path | None
    broken: list[Broken]


def name_of_step(step: int) -> str:
    """The name of a step's checkpoint."""
    return f"step-{step:08d}.ckpt"


def step_of_name(path: Path) -> int | None:
    """The step in a checkpoint's name, if it has one."""
    match = _STEP.search(path.name)  # also of one that was moved aside
    return None if match is None else int(match[1])


def checkpoints_in(folder: Path) -> list[Path]:
    """All checkpoints of a folder, the newest first; a link to one of them is not another one."""
    found = [
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if ".ckpt" in path.name and not path.is_symlink() and not path.name.endswith(UNFINISHED)
    ]
    return sorted(found, key=_age, reverse=True)


def _age(path: Path) -> tuple[float, float]:
    """Later is larger. One that names no step is placed by its time, among the newest."""
    step = step_of_name(path)
    return (float("inf") if step is None else step, path.stat().st_mtime)


def newest_whole(folder: Path) -> Newest:
    """The newest checkpoint of a folder that is whole, and the broken ones that are newer."""
    broken: list[Broken] = []
    for path in checkpoints_in(folder):
        problem = problem_of(path)
        if problem is None:
            return Newest(path, broken)
        broken.append(Broken(path, problem))
    return Newest(None, broken)


def problem_of(path: Path) -> str | None:
    """What is wrong with a checkpoint, a predicate; None if every checksum is right."""
    if path.is_file():
        return _problem_of_file(path)
    listed = read_manifest(path).get("files")
    files = list_files(path)
    if not files:
        return "is an empty folder"
    for name, size in (listed or files).items():
        if files.get(name) != size:
            return f"lacks {name}" if name not in files else f"has another {name} than was written"
    for name in files:
        if name.endswith(".pt") and (problem := _problem_of_file(path / name)) is not None:
            return f"has a file, {name}, that {problem}"
    return None


def _problem_of_file(path: Path) -> str | None:
    if path.stat().st_size == 0:
        return "is empty"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        return "is cut off, or no checkpoint"
    except (OSError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        return f"cannot be read ({error})"
    return None if damaged is None else f"is damaged (in {damaged})"


def list_files(folder: Path) -> dict[str, int]:
    """The sizes in bytes of all files below a folder, by relative path; without the manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    sizes.pop(MANIFEST, None)
    return sizes


def write_manifest(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the last file of a checkpoint folder: what run it is of, and all its files."""
    write_json(folder / MANIFEST, {"record": dict(record), "files": list_files(folder)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint folder; empty where there is none."""
    try:
        return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
