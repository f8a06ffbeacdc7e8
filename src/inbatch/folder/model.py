"""The exported model of a run, and the step that it is of.

An evaluation that improves on the best replaces the model at once. The checkpoint that knows of it comes
later, so the model before it stays aside until then: a run that resumes takes the one of its checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from inbatch.files import fresh_folder, remove, sync_tree, write_json, writing
from inbatch.folder.paths import RunFolder

_RECORD = "inbatch.json"  # in the model's directory


def put_model(folder: RunFolder, write: Callable[[Path], None], *, step: int) -> None:
    """Put a model in place of the one before, which stays aside if it is the first since a checkpoint.

    Args:
        folder: of the run.
        write: writes the model to a path.
        step: optimizer steps that it has been trained for.
    """
    model = folder.model
    with fresh_folder(model) as fresh:
        write(fresh)
        write_json(fresh / _RECORD, {"step": step})
        sync_tree(fresh)
        with fresh_folder(model) as old, writing(model):
            if model.exists():
                aside = model.with_name(f".model.{step_of(model)}.before")
                os.rename(model, old / "model" if _asides(folder) else aside)
            os.rename(fresh, model)


def settle_model(folder: RunFolder, best_step: int) -> bool:
    """Put the model of a step in place, and remove the others; false if there is none of that step."""
    for path in (folder.model, *_asides(folder)):
        if path.is_dir() and step_of(path) == best_step:
            if path != folder.model:
                remove(folder.model)
                path.rename(folder.model)
            forget_older_models(folder)
            return True
    return False


def forget_older_models(folder: RunFolder) -> None:
    """Remove what stayed aside, once a checkpoint knows of the model in place."""
    for path in _asides(folder):
        remove(path)


def step_of(model: Path) -> int | None:
    """The step that a model is of; None if it does not say so."""
    try:
        return int(json.loads((model / _RECORD).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _asides(folder: RunFolder) -> list[Path]:
    return sorted(folder.path.glob(".model.*.before"))
