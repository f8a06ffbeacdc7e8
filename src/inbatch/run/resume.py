"""The checkpoint that a run resumes from: which one, what it holds, and whether it belongs to this run.

A checkpoint is read before anything is loaded from it. A file is memory-mapped, so its weights stay where
they are. A folder comes from a strategy that writes shards: Lightning keeps everything else in `meta.pt`,
DeepSpeed in one file per rank, all with the same content.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from inbatch.callbacks.checkpoints import RECORD
from inbatch.callbacks.run_record import of_rank
from inbatch.console import make_console, print_plain
from inbatch.errors import ConfigError
from inbatch.folder.identity import check_same_run
from inbatch.folder.paths import RunFolder
from inbatch.folder.saved import newest_whole, problem_of, read_manifest
from inbatch.strategies import Strategy, World, global_rank, is_first_process

CHECKPOINT = "checkpoint to resume from"
_SHARDED = ("meta.pt", "checkpoint/*model_states.pt")


@dataclass(frozen=True, slots=True)
class Saved:
    """A whole checkpoint.

    path: a file, or a folder of shards.
    entries: its values, tensors mapped; None if only the strategy that wrote it can read them.
    record: of the run that has written it, see `inbatch.run.record`.
    """

    path: Path
    entries: Mapping[str, Any] | None
    record: Mapping[str, Any] = field(default_factory=dict)


def find_checkpoint(
    folder: RunFolder, resume: str, settings: Mapping[str, Any] | None = None
) -> Saved | None:
    """The checkpoint to resume from; None for a fresh start.

    Args:
        folder: of the run.
        resume: "auto" for the newest whole one of the folder, "never", or a path.
        settings: of this run, to be compared with those that the checkpoint was saved under.

    Raises:
        ConfigError: it is broken, or belongs to another run.
    """
    path = find_path(folder, resume)
    if path is None:
        return None
    saved = read_checkpoint(path, resume=resume)
    theirs = saved.record.get("settings")
    if theirs is not None and settings is not None:
        check_same_run(theirs, settings, path)
    return saved


def find_path(folder: RunFolder, resume: str) -> Path | None:
    """The path of the checkpoint to resume from.

    Raises:
        ConfigError: the named one is missing or broken, or all of the folder are.
    """
    if resume == "never":
        return None
    if resume == "auto":
        return _newest(folder)
    path = Path(resume)
    if not path.exists():
        raise ConfigError(
            "resume", "does not exist", "set auto, never, or a checkpoint", value=resume
        )
    path = path.resolve() if path.is_symlink() else path
    problem = problem_of(path)
    if problem is not None:
        whole = newest_whole(path.parent).path
        fix = "set it to a checkpoint of a run, such as OUTPUT_DIR/checkpoints/last.ckpt"
        raise ConfigError(
            "resume", problem, fix if whole is None else f"set resume={whole}", value=resume
        )
    return path


def _newest(folder: RunFolder) -> Path | None:
    newest = newest_whole(folder.checkpoints)
    if not newest.broken:
        return newest.path
    named = ", ".join(map(str, newest.broken))
    if newest.path is None:
        raise ConfigError(
            "output_dir",
            f"holds a run without a whole checkpoint ({named})",
            f"put a copy back, set another output_dir, or delete {folder.checkpoints} to start again",
            value=str(folder.path),
        )
    if is_first_process():
        print_plain(f"resume  {named}; going on from {newest.path.name}", console=make_console())
    return newest.path


def checkpoint_fact(saved: Saved | None) -> Any:
    """The content of a checkpoint in a few numbers, to be compared over ranks; None for a fresh start."""
    if saved is None:
        return None
    if saved.path.is_file():  # its index has a checksum of each tensor
        with zipfile.ZipFile(saved.path) as file:
            return sorted(entry.CRC for entry in file.infolist())
    return [saved.record.get("step"), saved.path.name]


def saved_tokens(saved: Saved | None, world: World) -> int | None:
    """Tokens of a chunk of this rank, as the run has had them; None where nothing is known."""
    if saved is None:
        return None
    return of_rank(saved.record, "chunk_tokens", global_rank(world), world.size) or None


def check_strategy_of(
    saved: Saved | None, strategy: Strategy, node: Mapping[str, Any], world: World
) -> None:
    """Check that a strategy can read a checkpoint: shards are read as they were written.

    Args:
        saved: the checkpoint.
        strategy, node: of this run, and as configured.
        world: ranks.

    Raises:
        ConfigError: they were written by another strategy, stage or number of ranks.
    """
    if saved is None:
        return
    shards = saved.path.is_dir()
    theirs, ranks = (
        saved.record.get("settings", {}).get("strategy", {}),
        saved.record.get("world_size"),
    )
    stage = theirs.get("stage")
    same = not shards or not saved.record or (stage, ranks) == (node.get("stage"), world.size)
    if shards == strategy.saves_shards and same:
        return
    now = _describe(type(strategy).__name__, node.get("stage"), world.size)
    model = RunFolder(saved.path.parents[1]).model
    if shards:
        written = f"{saved.path} of {_describe('DeepSpeed', stage, ranks)}"
        fix = f"set strategy=deepspeed_stage_{stage} trainer.devices={ranks}"
    else:
        written = f"{saved.path}, a file without shards,"
        fix = "set strategy=auto, ddp or fsdp"
    raise ConfigError(
        "strategy",
        f"cannot go on from {written} with {now}",
        f"{fix}, or start a new run from its model (encoder=pretrained encoder.model={model})",
    )


def _describe(name: str, stage: int | None, ranks: int | None) -> str:
    return f"{name}{'' if stage is None else f' stage {stage}'} on {ranks} rank{'s' * (ranks != 1)}"


def remedy(folder: RunFolder, resume: str) -> str:
    """The remedy if ranks resume from different checkpoints, or only some find one."""
    if resume not in ("auto", "never"):
        return f"set resume={resume!r} to a checkpoint that all nodes see"
    return f"set output_dir={str(folder.path)!r} to one folder that all nodes see"


def read_checkpoint(path: Path, *, resume: str) -> Saved:
    """Open a whole checkpoint.

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
    record = read_manifest(path).get("record", {}) if path.is_dir() else {}
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        if path.is_dir() and isinstance(error, pickle.UnpicklingError):
            return Saved(path, None, record)
        raise refusal from error
    if not isinstance(found, dict) or "pytorch-lightning_version" not in found:
        raise refusal
    return Saved(path, found, found.get(RECORD, record))


def _main_file(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next((file for pattern in _SHARDED for file in sorted(path.glob(pattern))), None)
