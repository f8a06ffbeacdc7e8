"""The state of the user's git repository, for the card and for the loggers."""

from __future__ import annotations

import subprocess
from typing import Any


def git_commit() -> str | None:
    """Commit of the repository that the run was started in; None outside of one, or without git."""
    return _git("rev-parse", "HEAD") or None


def git_state() -> dict[str, Any]:
    """The commit, and whether tracked files differ from it; empty outside of a repository."""
    commit = git_commit()
    if commit is None:
        return {}
    return {"commit": commit, "changed": bool(_git("status", "--porcelain", "-uno"))}


def _git(*arguments: str) -> str:
    try:
        found = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):  # a container may lack git
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
