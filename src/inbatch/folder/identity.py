"""The run that an output directory belongs to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from inbatch.cluster.lease import hold
from inbatch.config.schema import RunConfig
from inbatch.console import stop_recording
from inbatch.errors import ConfigError, in_yaml
from inbatch.files import remove_unfinished, write_text, writing
from inbatch.folder.paths import RunFolder
from inbatch.folder.saved import checkpoints_in
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
    "ema.decay",
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


@contextmanager
def claim(folder: RunFolder, settings: Mapping[str, Any]) -> Iterator[Callable[[], None]]:
    """Hold the folder for the block, and remove what killed writers have left in it.

    Only the first process of a run holds it, for all of them. A run that may not write here stops writing to
    the log here as well.

    Args:
        folder: of the run.
        settings: its whole configuration.

    Yields:
        A function that raises ConfigError where the folder is no longer held.

    Raises:
        ConfigError: another run holds it or has left its results here, or this run has and ``resume=never``
            is set.
    """
    with ExitStack() as held:
        check: Callable[[], None] = lambda: None  # noqa: E731
        try:
            if is_first_process():
                check = held.enter_context(hold(folder.lease)).check
            _check_owner(folder, settings)
        except ConfigError:
            stop_recording(folder.path)
            raise
        if is_first_process():
            for place in (folder.path, folder.checkpoints):
                remove_unfinished(place)
        yield check


def write_config(folder: RunFolder, settings: Mapping[str, Any]) -> None:
    """Make the folders and write the resolved configuration, once everything else has been checked.

    Only the first process writes, and replaces the file at once, since others may be reading it.
    """
    with writing(folder.checkpoints):
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
    if is_first_process():
        write_text(folder.config, OmegaConf.to_yaml(OmegaConf.create(dict(settings))))


def check_same_run(theirs: Mapping[str, Any], ours: Mapping[str, Any], path: Path) -> None:
    """Check that a checkpoint was saved under settings that a resumed run keeps.

    Where the data lies may differ: the plan of batches, which is compared as well, knows its content.

    Args:
        theirs: configuration of the run that has saved it.
        ours: of this run.
        path: of the checkpoint.

    Raises:
        ConfigError: a setting differs; it is named.
    """
    for place, old, new in _changes(
        theirs, ours, [key for key in _IDENTITY if key != "data.train"]
    ):
        raise ConfigError(
            place,
            f"was {in_yaml(old)} when {path} was saved, and a resumed run goes on with that",
            "set the old value, or start a new run from its model (encoder=pretrained "
            f"encoder.model={RunFolder(path.parents[1]).model})",
            value=new,
        )


def run_name(name: str, folder: RunFolder) -> str:
    """The name of a run: its own or, where it has none, that of its folder.

    The folder of a trial is a number; its name is that of the sweep.
    """
    if name != RunConfig.name or folder.trial.exists():
        return name
    return Path(os.path.abspath(folder.path)).name or name


def _check_owner(folder: RunFolder, ours: Mapping[str, Any]) -> None:
    started = bool(checkpoints_in(folder.checkpoints)) or folder.model.exists()
    if not started or not folder.config.exists():
        return
    if ours["resume"] == "never":
        raise ConfigError(
            "output_dir",
            "holds a run, which resume=never would overwrite",
            "set another output_dir, or resume=auto to resume that run",
            value=str(folder.path),
        )
    theirs: Any = OmegaConf.to_container(OmegaConf.load(folder.config))
    for place, old, new in _changes(theirs, ours, _IDENTITY):
        raise ConfigError(
            "output_dir",
            f"holds another run ({place} was {in_yaml(old)} and is {in_yaml(new)})",
            "set another output_dir, or the old value to resume that run",
            value=str(folder.path),
        )


def _changes(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], keys: Iterable[str]
) -> Iterator[tuple[str, Any, Any]]:
    """Place, old and new value of what makes another run, below `keys`."""
    for key in keys:
        for place, old, new in _differences(_at(theirs, key), _at(ours, key), key):
            if place not in _MAY_DIFFER:
                yield place, old, new


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
