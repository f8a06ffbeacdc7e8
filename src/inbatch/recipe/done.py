"""What has been done of a recipe: a file for each stage that has ended well.

The file holds the stage's command line and the marks of the stages before it, so that a stage that was
asked for otherwise is not taken for this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inbatch.errors import ConfigError
from inbatch.files import write_json
from inbatch.recipe.stages import Stage

FOLDER = "recipe"


def marks(stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """What is written about each stage: its command line, and a digest that changes with any stage before."""
    found: dict[str, dict[str, Any]] = {}
    for stage in stages:
        line = [stage.command, *stage.arguments]
        before = [found[name]["digest"] for name in stage.after]
        digest = hashlib.sha256(json.dumps([line, before]).encode()).hexdigest()[:16]
        found[stage.name] = {"line": line, "after": list(stage.after), "digest": digest}
    return found


def path_of(output_dir: Path, stage: str) -> Path:
    """The file of a stage."""
    return output_dir / FOLDER / f"{stage}.json"


def write_mark(output_dir: Path, stage: str, mark: Mapping[str, Any]) -> None:
    """Say that a stage has ended well."""
    write_json(path_of(output_dir, stage), mark)


def is_done(output_dir: Path, stage: Stage, mark: Mapping[str, Any]) -> bool:
    """Whether a stage has ended well.

    Raises:
        ConfigError: one with other keys has, or one that read other results.
    """
    path = path_of(output_dir, stage.name)
    if not path.is_file():
        return False
    try:
        there = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    if not isinstance(there, dict) or "line" not in there:
        return False
    if there.get("digest") == mark["digest"]:
        return True
    fix = f"set another output_dir, or delete {path} and {stage.folder} to do it again"
    changed = sorted({*map(str, mark["line"])} ^ {*map(str, there["line"])})
    problem = (
        f"has been done with other keys ({', '.join(changed)})"
        if changed
        else f"has been done on other results of {' and '.join(stage.after)}"
    )
    raise ConfigError(f"stages.{stage.name}", problem, fix)
