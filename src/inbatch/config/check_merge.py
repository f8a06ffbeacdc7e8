"""The check of the configuration of a merge before anything is loaded."""

from __future__ import annotations

from omegaconf import DictConfig

from inbatch.config.check import (
    add_evaluators,
    check_evaluation,
    check_folders,
    parse,
    plain_values,
)
from inbatch.config.merging import MergeConfig


def check_merge(cfg: DictConfig) -> MergeConfig:
    """Check keys, types and values.

    Raises:
        ConfigError: see `check_config`.
    """
    run: MergeConfig = parse(plain_values(cfg), MergeConfig)
    add_evaluators(run.evaluation.evaluators, run.data.eval, run.data.columns)
    check_evaluation(run.evaluation)
    check_folders({"output_dir": run.output_dir})
    return run
