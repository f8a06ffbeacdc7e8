"""Whose is an output directory? A run goes on in its own, and never writes over another's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from inbatch.callbacks.checkpoints import LAST
from inbatch.config.schema import RunConfig
from inbatch.console import stop_recording
from inbatch.errors import ConfigError

CONFIG = "config.yaml"
# With another value it is another run; what is not here may change when a run goes on. The optimizer's
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
# How it is computed, not what.
_MAY_DIFFER = (
    "encoder.attention",
    "encoder.gradient_checkpointing",
    "encoder.trust_remote_code",
    "loss.implementation",
    "optimizer.fused",
)


def check_free(run: RunConfig, output_dir: Path) -> None:
    """Whether a run may write into a directory; where it may not, its log is that other run's, too.

    Raises:
        ConfigError: another run has left its results there, or this one, which is told not to go on.
    """
    try:
        _check_free(run, output_dir)
    except ConfigError:
        stop_recording()
        raise


def _check_free(run: RunConfig, output_dir: Path) -> None:
    config = output_dir / CONFIG
    started = (output_dir / "checkpoints" / LAST).exists() or (output_dir / "model").exists()
    if not started or not config.exists():
        return
    if run.resume == "never":
        raise ConfigError(
            f"output_dir={str(output_dir)!r} holds a run, which resume=never would write over: "
            "set another output_dir, or resume=auto to go on with that run"
        )
    theirs = OmegaConf.to_container(OmegaConf.load(config))
    ours = asdict(run)
    for key in _IDENTITY:
        for place, old, new in _differences(_at(theirs, key), _at(ours, key), key):
            if place in _MAY_DIFFER:
                continue
            raise ConfigError(
                f"output_dir={str(output_dir)!r} holds another run ({place} was {old!r} and is "
                f"{new!r}): set another output_dir, or the old value to go on with that run"
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
