"""The configurations of `conf/` by the name of their file: their keys, and the groups they choose from."""

from __future__ import annotations

from typing import NamedTuple

from inbatch.config.embed_schema import EmbedConfig
from inbatch.config.judging import CompareConfig, EvaluateConfig
from inbatch.config.merging import MergeConfig
from inbatch.config.mine import MineConfig
from inbatch.config.schema import Keys, RunConfig


class CommandConfig(NamedTuple):
    """A configuration. groups: None for all of `conf/`."""

    keys: type[Keys]
    groups: tuple[str, ...] | None


CONFIGS = {
    "train": CommandConfig(RunConfig, None),
    "evaluate": CommandConfig(EvaluateConfig, ("encoder", "evaluation")),
    "compare": CommandConfig(CompareConfig, ("encoder", "evaluation")),
    "embed": CommandConfig(EmbedConfig, ("encoder",)),
    "merge": CommandConfig(MergeConfig, ("evaluation",)),
    "mine": CommandConfig(MineConfig, ("encoder", "guide")),
}
