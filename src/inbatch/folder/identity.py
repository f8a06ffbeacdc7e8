"""The run that an output directory belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from inbatch.console import stop_recording
from inbatch.errors import ConfigError, in_yaml
from inbatch.files import write_text, writing
from inbatch.folder.paths import RunFolder
from inbatch.strategies import is_first_process

# A different value makes it a different run; everything else may change when a run resumes. The optimizer's
# numbers are part of its saved state, so that another learning rate would have no effect.
_IDENTITY = (
    "data.train",
    "encoder",
    "loss",
    "guide.model",
    "guide.revision",
    "guide.max_length",
    "guide.prompts",
    "sampler",
    "optimizer",
    "learning_rate_mapping",
    "global_batch_size",
    "seed",
)
# These change how the run computes, not what it computes.
_MAY_DIFFER = (
    "encoder.attention",
    "encoder.gradient_checkpointing",
    "encoder.trust_remote_code",
    "loss.implementation",
    "optimizer.fused",
)


def claim(folder: RunFolder, settings: Mapping[str, Any]) -> None:
    """Make sure that a run may write here. If it may not, it stops writing to the log here as well.

    Args:
        folder: of the run.
        settings: its whole configuration.

    Raises:
        ConfigError: another run has left its results here, or this run has and ``resume=never`` is set.
    """
    try:
        _check_owner(folder, settings)
    except ConfigError:
        stop_recording(folder.path)
        raise


def write_config(folder: RunFolder, settings: Mapping[str, Any]) -> None:
    """Make the folders and write the resolved configuration, once everything else has been checked.

    Only the first process writes, and replaces the file at once, since others may be reading it.
    """
    with writing(folder.checkpoints):
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
    if is_first_process():
        write_text(folder.config, OmegaConf.to_yaml(OmegaConf.create(dict(settings))))


def _check_owner(folder: RunFolder, ours: Mapping[str, Any]) -> None:
    started = folder.last_checkpoint.exists() or folder.model.exists()
    if not started or not folder.config.exists():
        return
    if ours["resume"] == "never":
        raise ConfigError(
            "output_dir",
            "holds a run, which resume=never would overwrite",
            "set another output_dir, or resume=auto to resume that run",
            value=str(folder.path),
        )
    theirs = OmegaConf.to_container(OmegaConf.load(folder.config))
    for key in _IDENTITY:
        for place, old, new in _differences(_at(theirs, key), _at(ours, key), key):
            if place not in _MAY_DIFFER:
                raise ConfigError(
                    "output_dir",
                    f"holds another run ({place} was {in_yaml(old)} and is {in_yaml(new)})",
                    "set another output_dir, or the old value to resume that run",
                    value=str(folder.path),
                )


def _at(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _differences(old: Any, new: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """Place, old and new value of the leaves that differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{place}.{key}")
    elif old != new:
        yield place, old, new
