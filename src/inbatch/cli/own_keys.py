"""The keys of a command that takes the command line of a run: a group beside those of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from inbatch.errors import ConfigError


def take_own_keys(cfg: DictConfig, group: str, *, example: str) -> dict[str, Any]:
    """Take a command's own group out of a composed configuration, which is left that of the run.

    Args:
        cfg: changed in place.
        group: name of the group.
        example: one of its keys with a value, for the error.

    Raises:
        ConfigError: the group is a value.
    """
    OmegaConf.set_struct(cfg, False)
    node = cfg.pop(group, {})
    values: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(values, Mapping):
        raise ConfigError(group, "is not a group of keys", f"set {example}", value=values)
    return {str(key): value for key, value in values.items()}
