"""Every check of a configuration before anything is loaded, and the one place that derives sizes.

Nodes with a `_target_` are checked against that target's signature (targets.py), everything else
against the dataclasses of schema.py, so a key that nothing takes is an error before any file is opened.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inbatch.config.schema import PRECISIONS, EvaluateConfig, RunConfig, TrainerConfig
from inbatch.config.targets import (
    arguments,
    check_targets,
    fits,
    locate,
    nearest,
    unknown_key,
    wrong_type,
)
from inbatch.data.sources.prepared import expand_prepared
from inbatch.data.sources.spec import parse_spec
from inbatch.errors import ConfigError
from inbatch.optim.check import check_optimizer

__all__ = [
    "PRECISIONS",
    "EvaluateConfig",
    "RunConfig",
    "check_config",
    "check_evaluate",
    "check_precision",
    "rows_per_rank",
]


def check_config(cfg: DictConfig) -> RunConfig:
    """Check keys, types and values of a composed configuration.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, a missing value, or one out of range.
    """
    run: RunConfig = _parse(_values(cfg), RunConfig, "")
    _check_sources(run)
    _add_evaluators(run)
    _check_nodes(run)
    _check_values(run)
    return run


def check_evaluate(cfg: DictConfig) -> EvaluateConfig:
    """The same for the configuration of an evaluation.

    Raises:
        ConfigError: see `check_config`.
    """
    run: EvaluateConfig = _parse(_values(cfg), EvaluateConfig, "")
    _add_evaluators(run)
    _check_node(run.encoder, "encoder", "conf/encoder/, as encoder=...")
    _check_evaluators(run)
    if run.chunk_tokens < 1:
        raise ConfigError(f"chunk_tokens={run.chunk_tokens} is too small: set at least 1")
    return run


def _values(cfg: DictConfig) -> Any:
    """The configuration as plain values, interpolations resolved."""
    try:
        _check_nothing_missing(cfg)
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(omegaconf_line(error)) from None


def rows_per_rank(rows: int, world_size: int, *, field: str = "global_batch_size") -> int:
    """Rows of a full batch that each rank holds; sizes that do not divide are refused."""
    if rows >= world_size and rows % world_size == 0:
        return rows // world_size
    below = rows // world_size * world_size
    valid = " or ".join(str(n) for n in (below, below + world_size) if n > 0)
    raise ConfigError(f"{field}={rows} does not divide over {world_size} ranks: set {valid}")


def check_precision(precision: str, accelerator: str) -> None:
    """Refuse what the device cannot compute; Lightning would take bf16 in its place."""
    if precision in ("fp16", "tf32") and accelerator == "cpu":
        raise ConfigError(
            f"precision={precision!r} needs a GPU: set precision=fp32 or precision=bf16"
        )


def _check_nothing_missing(cfg: DictConfig) -> None:
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        verb = "are" if len(missing) > 1 else "is"
        raise ConfigError(
            f"{' and '.join(missing)} {verb} not set: give a value on the command line, "
            f"as {missing[0]}=..."
        )


def _parse(values: Mapping[str, Any], schema: type, path: str) -> Any:
    """The dataclass `schema` with these values; keys that are left out keep their default."""
    hints = typing.get_type_hints(schema)
    parsed: dict[str, Any] = {}
    for key, value in values.items():
        place = f"{path}.{key}" if path else str(key)
        if key not in hints:
            raise unknown_key(place, str(key), hints, path or "the configuration")
        parsed[key] = _parse_value(value, hints[key], place)
    return schema(**parsed)


def _parse_value(value: Any, hint: Any, place: str) -> Any:
    if not is_dataclass(hint):
        if not fits(value, hint):
            raise wrong_type(place, value, hint)
        return float(value) if isinstance(value, int) and hint in (float, float | None) else value
    if not isinstance(value, Mapping):
        keys = ", ".join(sorted(typing.get_type_hints(hint)))
        raise ConfigError(f"{place}={value!r} is not a group of keys: set {place}.<key> ({keys})")
    return _parse(value, typing.cast(type, hint), place)


def _check_nodes(run: RunConfig) -> None:
    """Whether what is to be built is there and can be built."""
    for name in ("encoder", "sampler", "optimizer", "schedule", "strategy"):
        _check_node(getattr(run, name), name, f"conf/{name}/, as {name}=...")
    make = locate(run.optimizer["_target_"], "optimizer")
    check_optimizer(make, arguments(run.optimizer))
    if run.pruner:
        _check_node(run.pruner, "pruner", "conf/pruner/, as pruner=...")
        if not run.evaluation.evaluators:
            raise ConfigError("pruner has no metric to compare points by: set data.eval=FILE")
    if isinstance(run.loss, Mapping) and run.loss and "_target_" not in run.loss:
        for name, node in run.loss.items():
            _check_node(node, f"loss.{name}", f"conf/loss/, as +loss@loss.{name}=...")
            if name not in run.data.train:
                raise unknown_key(f"loss.{name}", name, run.data.train, "data.train")
    else:
        _check_node(run.loss, "loss", "conf/loss/, as loss=...")
    _check_evaluators(run)
    for name, node in run.logger.items():
        _check_node(node, f"logger.{name}", "conf/logger/, as logger=...")


def _check_evaluators(run: RunConfig | EvaluateConfig) -> None:
    for name, node in run.evaluation.evaluators.items():
        _check_node(node, f"evaluation.evaluators.{name}", "conf/evaluation/, as evaluation=...")


def _check_node(node: Any, path: str, choices: str) -> None:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{path}={node!r} has no _target_: choose one of {choices}")
    check_targets(node, path)


def _check_sources(run: RunConfig) -> None:
    if not run.data.train:
        raise ConfigError("data.train names no source: set data.train=FILE")
    run.data.train = expand_prepared(_by_name(run.data.train, "train"))
    for name, value in run.data.train.items():
        spec = parse_spec(value, field=f"data.train.{name}")
        columns = {**run.data.columns, **(spec.columns or {})}
        run.data.train[name] = {**_as_keys(value), "columns": columns or None}


def _add_evaluators(run: RunConfig | EvaluateConfig) -> None:
    """An evaluator for each set of `data.eval`, unless a chosen one evaluates on it already."""
    evaluators = run.evaluation.evaluators
    for name, node in evaluators.items():
        if isinstance(node, Mapping) and "path" in node and node["path"] is None:
            raise ConfigError(
                f"evaluation.evaluators.{name}.path is not set: set data.eval=FILE, or evaluation=auto"
            )
    if any(node.get("path") == run.data.eval for node in evaluators.values()):
        return
    for name, path in _by_name({} if run.data.eval is None else run.data.eval, "eval").items():
        node = {"_target_": "inbatch.evaluation.evaluator_for", "path": path, "name": name}
        evaluators[name] = {**node, "columns": run.data.columns or None}


def _by_name(value: Any, name: str) -> dict[str, Any]:
    """Things by name; one that has none, be it files or the keys of a source, gets `name`."""
    return dict(value) if isinstance(value, Mapping) and "path" not in value else {name: value}


def _as_keys(source: Any) -> dict[str, Any]:
    """A source as its keys."""
    return dict(source) if isinstance(source, Mapping) else {"path": source}


def _check_values(run: RunConfig) -> None:
    _one_of("precision", run.precision, PRECISIONS)
    _one_of("gather", run.gather, ("global", "ring", "local"))
    _one_of("guide.mode", run.guide.mode, ("stored", "live"))
    _one_of("guide.store_dtype", run.guide.store_dtype, ("float16", "float32"))
    _one_of("evaluation.mode", run.evaluation.mode, ("max", "min"))
    trainer, loader = run.trainer, run.data.loader
    if trainer.accelerator == "gpu":  # the name that Lightning has for it
        trainer.accelerator = "cuda"
    _one_of("trainer.accelerator", trainer.accelerator, ("auto", "cpu", "cuda"))
    for name, folder in (
        ("output_dir", run.output_dir),
        ("guide.store_dir", run.guide.store_dir),
        ("data.cache_dir", run.data.cache_dir),
    ):
        if folder is not None:
            check_local(name, folder)
    for name, value, least in (
        ("global_batch_size", run.global_batch_size, 1),
        ("accumulate", run.accumulate, 1),
        ("seed", run.seed, 0),
        ("trainer.num_nodes", trainer.num_nodes, 1),
        ("trainer.log_every_steps", trainer.log_every_steps, 1),
        ("checkpoint.every_n_steps", run.checkpoint.every_n_steps, 1),
        ("checkpoint.keep", run.checkpoint.keep, 0),
        ("evaluation.every_steps", run.evaluation.every_steps, 1),
        ("gradcache.chunk_size", run.gradcache.chunk_size, 1),
        ("gradcache.chunk_tokens", run.gradcache.chunk_tokens, 1),
        ("gradcache.keep_gib", run.gradcache.keep_gib, 0),
        ("guide.chunk_tokens", run.guide.chunk_tokens, 1),
        ("data.loader.num_workers", loader.num_workers, 0),
        ("data.loader.prefetch", loader.prefetch, 1),
    ):
        if isinstance(value, str):
            if value != "auto":
                raise ConfigError(f"{name}={value!r} is not known: set a number, null or auto")
        elif value is not None and value < least:
            raise ConfigError(f"{name}={value} is too small: set at least {least}")
    _check_length(trainer)
    if run.evaluation.best_metric is not None and not run.evaluation.evaluators:
        raise ConfigError(
            f"evaluation.best_metric={run.evaluation.best_metric!r} has no evaluator to come from: "
            "set data.eval=FILE"
        )
    if run.clip_norm is not None and run.clip_norm <= 0:
        raise ConfigError(
            f"clip_norm={run.clip_norm} is too small: set a norm above 0, or null for no clipping"
        )


def check_local(field: str, folder: str) -> None:
    """Refuse the address of a remote folder, which would become a local one of a strange name."""
    if re.search(r"\w\w:/", folder):  # a path that is made absolute keeps one slash of ://
        raise ConfigError(f"{field}={folder!r} is no folder of this machine: set a local path")


def _check_length(trainer: TrainerConfig) -> None:
    for name, value in (("max_epochs", trainer.max_epochs), ("max_steps", trainer.max_steps)):
        if value < 1 and value != -1:
            raise ConfigError(
                f"trainer.{name}={value} is no length: set at least 1, or -1 for no limit"
            )
    if trainer.max_epochs == trainer.max_steps == -1:
        raise ConfigError(
            "trainer.max_epochs=-1 and trainer.max_steps=-1 train without end: set one of them"
        )


def _one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        question = nearest(value, allowed) or f"set one of {', '.join(allowed)}"
        raise ConfigError(f"{name}={value!r} is not known: {question}")


def omegaconf_line(error: OmegaConfBaseException) -> str:
    """An error of OmegaConf in one line: its message, after the key that its last lines name."""
    text = " ".join(str(error).partition("\n    full_key")[0].split())
    key = re.search(r"full_key: (\S+)", str(error))
    return f"{key[1]}: {text}" if key else text
