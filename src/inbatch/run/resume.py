"""The checkpoint that a run resumes from: which one, what it holds, and whether it belongs to this run.

A checkpoint is read before anything is loaded from it. A file is memory-mapped, so its weights stay where
they are. A folder comes from a strategy that writes shards: Lightning keeps everything else in `meta.pt`,
DeepSpeed in one file per rank, all with the same content.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from inbatch.errors import ConfigError
from inbatch.folder.paths import RunFolder
from inbatch.run.datamodule import BatchModule

CHECKPOINT = "checkpoint to resume from"
_SHARDED = ("meta.pt", "checkpoint/*model_states.pt")


def resume_path(folder: RunFolder, resume: str) -> Path | None:
    """The checkpoint to resume from: the run's own for "auto", None for "never", else the named one.

    Raises:
        ConfigError: the named checkpoint does not exist.
    """
    if resume == "never":
        return None
    last = folder.last_checkpoint
    if resume == "auto" and not last.exists():
        return None
    path = last if resume == "auto" else Path(resume)
    if not path.exists():
        raise ConfigError(
            "resume", "does not exist", "set auto, never, or a checkpoint", value=resume
        )
    return path


def checkpoint_fact(path: Path | None, *, resume: str) -> Any:
    """The content of a checkpoint in a few numbers, to be compared over ranks; None for a fresh start."""
    if path is None:
        return None
    if path.is_file():  # its index has a checksum of each tensor
        with zipfile.ZipFile(path) as file:
            return sorted(entry.CRC for entry in file.infolist())
    saved = read_checkpoint(path, resume=resume)  # without the weights
    return "shards" if saved is None else [saved["global_step"], saved["epoch"]]


def remedy(folder: RunFolder, resume: str) -> str:
    """The remedy if ranks resume from different checkpoints, or only some find one."""
    if resume not in ("auto", "never"):
        return f"set resume={resume!r} to a checkpoint that all nodes see"
    return f"set output_dir={str(folder.path)!r} to one folder that all nodes see"


def find_checkpoint(folder: RunFolder, resume: str, data: BatchModule) -> Path | None:
    """The checkpoint to resume from, checked to belong to the batch plan of this run; None for a fresh start.

    Raises:
        ConfigError: it belongs to another plan, or is not a checkpoint.
    """
    path = resume_path(folder, resume)
    checkpoint = None if path is None else read_checkpoint(path, resume=resume)
    if checkpoint is not None:
        data.check_checkpoint(checkpoint)
    return path


def read_checkpoint(path: Path, *, resume: str) -> dict[str, Any] | None:
    """The entries of a checkpoint; tensors are mapped, not read.

    None for a folder that holds more than plain values: only the strategy that wrote it can read it.

    Args:
        path: a file, or a folder of shards.
        resume: the user's value, for messages.

    Raises:
        ConfigError: it is not a checkpoint of a run.
    """
    file = _main_file(path)
    refusal = ConfigError(
        "resume",
        f"names {path}, which is not a checkpoint of a run",
        "set it to one, such as OUTPUT_DIR/checkpoints/last.ckpt, or to auto or never",
        value=resume,
    )
    if file is None or not zipfile.is_zipfile(file):
        raise refusal
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        if path.is_dir() and isinstance(error, pickle.UnpicklingError):
            return None
        raise refusal from error
    if not isinstance(found, dict) or "pytorch-lightning_version" not in found:
        raise refusal
    return found


def _main_file(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next((file for pattern in _SHARDED for file in sorted(path.glob(pattern))), None)
