"""What a checkpoint says of the run that wrote it, read before anything is loaded from it.

A file is memory-mapped, so its weights stay where they are. A folder is one of a strategy that writes shards:
Lightning's keeps everything else in `meta.pt`, DeepSpeed's in a file of each rank, which all say the same.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from inbatch.errors import ConfigError

_SHARDED = ("meta.pt", "checkpoint/*model_states.pt")


def read_checkpoint(path: Path, *, resume: str) -> dict[str, Any] | None:
    """The entries of a checkpoint; tensors are mapped, not read.

    None for a folder that holds more than plain values: what wrote it has to read it.

    Args:
        path: a file, or a folder of shards.
        resume: the user's value, for messages.

    Raises:
        ConfigError: it is no checkpoint of a run.
    """
    file = _main_file(path)
    refusal = ConfigError(
        f"resume={resume!r}: {path} is no checkpoint of a run: name one, as "
        "OUTPUT_DIR/checkpoints/last.ckpt, or set auto or never"
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
