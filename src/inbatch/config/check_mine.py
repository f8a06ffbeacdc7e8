"""The check of a mining's configuration before anything is loaded."""

from __future__ import annotations

from omegaconf import DictConfig

from inbatch.config.check import (
    check_folders,
    check_node,
    check_sources,
    name_cuda,
    parse,
    plain_values,
)
from inbatch.config.mine import MineConfig, MineKeys
from inbatch.config.targets import with_defaults
from inbatch.errors import ConfigError


def check_mine(cfg: DictConfig) -> MineConfig:
    """Check keys, types, values, and those that go together.

    Raises:
        ConfigError: see `check_config`; a key without effect, or two that exclude each other.
    """
    run: MineConfig = parse(plain_values(cfg), MineConfig)
    check_sources(run.data)
    check_node(run.encoder, "encoder", "conf/encoder/, as encoder=...")
    run.encoder = with_defaults(run.encoder)
    check_folders({"output_dir": run.output_dir, "data.cache_dir": run.data.cache_dir})
    name_cuda(run.trainer)
    _check_corpus(run.mine)
    _check_range(run.mine)
    _check_guide(run)
    _check_output(run.mine)
    return run


def _check_corpus(keys: MineKeys) -> None:
    for name in ("corpus_columns", "corpus_embeddings"):
        if (value := getattr(keys, name)) and keys.corpus is None:
            fix = "name its files, as mine.corpus=FILES, or remove it"
            raise ConfigError(
                f"mine.{name}", "belongs to a corpus, and there is none", fix, value=value
            )
    for name in ("faiss_index", "faiss_probes"):
        if (value := getattr(keys, name)) is not None and keys.search != "faiss":
            fix = "set mine.search=faiss, or remove it"
            raise ConfigError(f"mine.{name}", "has no effect on an exact search", fix, value=value)


def _check_range(keys: MineKeys) -> None:
    if keys.range_max is not None and keys.range_max < keys.range_min + keys.num_negatives:
        raise ConfigError(
            "mine.range_max",
            f"leaves fewer than {keys.num_negatives} ranks behind mine.range_min={keys.range_min}",
            f"set {keys.range_min + keys.num_negatives} or more, or null",
            value=keys.range_max,
        )
    if keys.min_negatives > keys.num_negatives:
        raise ConfigError(
            "mine.min_negatives",
            f"is above mine.num_negatives={keys.num_negatives}, so that no row would be written",
            f"set {keys.num_negatives} or less",
            value=keys.min_negatives,
        )
    if keys.relative_margin is not None and keys.percentage is not None:
        raise ConfigError(
            "mine.percentage",
            f"says the same as mine.relative_margin={keys.relative_margin}",
            "set one of them",
            value=keys.percentage,
        )
    low, high = keys.min_score, keys.max_score
    if low is not None and high is not None and low > high:
        raise ConfigError(
            "mine.min_score", f"is above mine.max_score={high}", "exchange them", value=low
        )
    if keys.temperature is not None and keys.choice != "softmax":
        fix = "set mine.choice=softmax, or remove it"
        raise ConfigError(
            "mine.temperature",
            f"has no effect on mine.choice={keys.choice}",
            fix,
            value=keys.temperature,
        )


def _check_guide(run: MineConfig) -> None:
    keys, model = run.mine, run.guide.model
    used = keys.guide_margin is not None or keys.scores in ("guide", "auto")
    if model is not None and keys.output == "n-tuple":
        used = keys.guide_margin is not None
    if model is not None and not used:
        fix = "set mine.guide_margin=0 or mine.scores=guide, or guide=none"
        raise ConfigError("guide.model", "has no effect", fix, value=model)
    if model is None and keys.guide_margin is not None:
        fix = "set guide.model=NAME_OR_PATH, or remove it"
        raise ConfigError("mine.guide_margin", "needs a guide", fix, value=keys.guide_margin)
    if model is None and keys.scores == "guide":
        fix = "set guide.model=NAME_OR_PATH, or mine.scores=model"
        raise ConfigError("mine.scores", "needs a guide", fix, value=keys.scores)


def _check_output(keys: MineKeys) -> None:
    if keys.output == "n-tuple" and 0 < keys.min_negatives < keys.num_negatives:
        raise ConfigError(
            "mine.min_negatives",
            f"has no effect on mine.output=n-tuple, which needs all {keys.num_negatives}",
            "remove it, or set mine.output=list",
            value=keys.min_negatives,
        )
    if keys.output == "n-tuple" and keys.scores in ("model", "guide"):
        raise ConfigError(
            "mine.scores",
            "cannot be kept where each negative has a column of its own",
            "set mine.output=list or mine.scores=none",
            value=keys.scores,
        )
