"""Keeps the id of a run at Weights & Biases across restarts, in a file of the output directory."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbatch.files import write_text
from inbatch.strategies.launcher import is_first_process


def with_run_id(node: Mapping[str, Any], path: Path, *, fresh: bool) -> dict[str, Any]:
    """The configuration of a logger, with the run's id if it is one of W&B and names none.

    Args:
        node: `_target_` and its keys.
        path: file that keeps the id; a new id is written to it.
        fresh: whether the run starts from its beginning, and so needs a new id.
    """
    if not str(node["_target_"]).endswith(".WandbLogger") or node.get("id") is not None:
        return dict(node)
    is_first = is_first_process()  # the only one that logs
    return {**node, "id": _run_id(path, fresh=fresh) if is_first else None}


def _run_id(path: Path, *, fresh: bool) -> str:
    if fresh or not path.exists():
        write_text(path, secrets.token_hex(4))
    return path.read_text()
