"""The check of the configuration of an embedding before anything is loaded."""

from __future__ import annotations

from omegaconf import DictConfig

from inbatch.config.check import check_folders, check_node, name_cuda, parse, plain_values
from inbatch.config.embed_schema import EmbedConfig
from inbatch.errors import ConfigError
from inbatch.evaluation.quantise import WITH_RANGES


def check_embed(cfg: DictConfig) -> EmbedConfig:
    """Check keys, types and values.

    Raises:
        ConfigError: see `check_config`; a key without effect.
    """
    run: EmbedConfig = parse(plain_values(cfg), EmbedConfig)
    check_node(run.encoder, "encoder", "conf/encoder/, as encoder=...")
    check_folders({"output_dir": run.output_dir, "data.cache_dir": run.data.cache_dir})
    name_cuda(run.trainer)
    _check_ranges(run)
    return run


def _check_ranges(run: EmbedConfig) -> None:
    given = run.calibration_texts != EmbedConfig.calibration_texts
    if run.dtype not in WITH_RANGES:
        fix = f"set dtype={' or '.join(WITH_RANGES)}, or remove it"
        for key, value in (
            ("ranges", run.ranges),
            ("calibration_texts", run.calibration_texts if given else None),
        ):
            if value is not None:
                raise ConfigError(key, f"has no effect on dtype={run.dtype}", fix, value=value)
    elif run.ranges is not None and given:
        problem = f"has no effect, since ranges={run.ranges} gives them"
        raise ConfigError(
            "calibration_texts", problem, "remove one of them", value=run.calibration_texts
        )
