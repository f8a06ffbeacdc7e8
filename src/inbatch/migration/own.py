"""Settings of inbatch as its own cards and run folders hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inbatch.migration.draft import Draft, plain

# What belongs to one run and one machine: folders, places of files, and where a run went on from.
_OF_A_RUN = {"output_dir", "data_dir", "resume", "name"}


def set_own(draft: Draft, settings: Mapping[str, Any]) -> None:
    """Take settings over as they are, but for what belongs to one run."""
    for key, value in settings.items():
        if key in _OF_A_RUN:
            continue
        if isinstance(value, str) and value.endswith("…"):
            draft.note(f"{key}: cut short in the card")
        elif key in ("data.eval", "data.train") or key.endswith(".path"):
            if value is not None:
                draft.set(key, "???")
                draft.needs[key] = (
                    f"{value}, or other files like it" if isinstance(value, str) else "files"
                )
        else:
            draft.set(key, plain(value))
