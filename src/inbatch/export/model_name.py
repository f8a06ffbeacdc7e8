"""The name of a model in local files: from its own card, otherwise from its most telling folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from inbatch.encoder.resolve import resolve_directory

_CARD = re.compile(r"---\n(?P<header>.*?)\n---\s*\n(?P<body>.*)", re.DOTALL)
_HEADING = re.compile(r"^# +([\w./-]+) *$", re.MULTILINE)
_HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_SAYS_NOTHING = re.compile(
    r"(?i)|model|run|best|last|final|latest|snapshots|[0-9a-f]{40}|checkpoint[-_\d]*"
)


def local_name(model: str) -> str:
    """The name of a model that is a directory or ``pkg://package/directory``; others are names already.

    Taken from the model index or the heading of its README.md, where that is one word; else from the
    hub's cache, or the last folder that is not called "model" or the like.
    """
    path = Path(model).expanduser()
    if not model.startswith("pkg://") and not path.is_dir():
        return model
    directory = path if path.is_dir() else resolve_directory(model)
    inside = model.removeprefix("pkg://") if model.startswith("pkg://") else str(path.resolve())
    cached = _HUB_CACHE.search(inside)
    parts = [part for part in Path(inside).parts if not _SAYS_NOTHING.fullmatch(part)]
    in_path = f"{cached[1]}/{cached[2]}" if cached else parts[-1] if parts else path.name
    own = _own_name(directory / "README.md") or ""
    return in_path if _SAYS_NOTHING.fullmatch(own) else own


def _own_name(card: Path) -> str | None:
    if not card.is_file():
        return None
    found = _CARD.match(card.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        return None
    try:
        header: Any = yaml.safe_load(found["header"])
    except yaml.YAMLError:
        header = None
    index = header.get("model-index") if isinstance(header, dict) else None
    if isinstance(index, list) and index and isinstance(index[0], dict) and index[0].get("name"):
        return str(index[0]["name"])
    heading = _HEADING.search(found["body"])
    return heading[1] if heading else None
