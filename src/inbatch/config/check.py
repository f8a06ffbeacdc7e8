"""Every check of a configuration before anything is loaded, and the one place that derives sizes.

Keys, types and ranges are those of the dataclasses of schema.py and, for nodes with a `_target_`, of that
target's signature (targets.py). So a key that nothing takes is an error before any file is opened.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inbatch.config.schema import (
    PRECISIONS,
    EvaluationConfig,
    RunConfig,
    TrainerConfig,
)
from inbatch.config.targets import arguments, check_targets, errors_under, locate, with_defaults
from inbatch.config.types import check_type, is_node, unknown_key
from inbatch.data.sources.config_keys import is_one
from inbatch.data.sources.prepared import expand_prepared
from inbatch.data.sources.spec import SourceSpec, parse_spec
from inbatch.errors import ConfigError
from inbatch.optim.check import check_optimizer

__all__ = [
    "PRECISIONS",
    "RunConfig",
    "check_config",
    "check_precision",
    "rows_per_rank",
]

# Groups of which one file has to be chosen.
_NODES = ("encoder", "sampler", "optimizer", "schedule", "strategy")


def check_config(cfg: DictConfig) -> RunConfig:
    """Check keys, types and values of a composed configuration.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, a missing value, or one out of range.
    """
    run: RunConfig = parse(plain_values(cfg), RunConfig)
    check_sources(run.data)
    add_evaluators(run.evaluation.evaluators, run.data.eval, run.data.columns)
    _check_nodes(run)
    _check_loss(run.loss, run.data.train)
    check_evaluation(run.evaluation)
    _check_pruner(run.pruner, run.evaluation)
    for name in run.card.datasets:
        known = [*run.data.train, *run.evaluation.evaluators]
        if name not in known:
            raise unknown_key(f"card.datasets.{name}", known, "data.train and data.eval")
    folders = {"output_dir": run.output_dir, "guide.store_dir": run.guide.store_dir}
    check_folders({**folders, "data.cache_dir": run.data.cache_dir})
    _check_trainer(run.trainer)
    for name in (*_NODES, "loss"):
        setattr(run, name, with_defaults(getattr(run, name)))
    return run


def rows_per_rank(rows: int, world_size: int, *, field: str = "global_batch_size") -> int:
    """Rows of a full batch that each rank holds; sizes that do not divide are refused."""
    if rows >= world_size and rows % world_size == 0:
        return rows // world_size
    below = rows // world_size * world_size
    valid = " or ".join(str(n) for n in (below, below + world_size) if n > 0)
    raise ConfigError(field, f"does not divide over {world_size} ranks", f"set {valid}", value=rows)


def check_precision(precision: str, accelerator: str) -> None:
    """Refuse what the device cannot compute; Lightning would take bf16 in its place."""
    if precision in ("fp16", "tf32") and accelerator == "cpu":
        raise ConfigError(
            "precision", "needs a GPU", "set precision=fp32 or precision=bf16", value=precision
        )


def check_local(field: str, folder: str) -> None:
    """Refuse the address of a remote folder, which would become a local one of a strange name."""
    if re.search(r"\w\w:/", folder):  # a path that is made absolute keeps one slash of ://
        raise ConfigError(
            field, "is not a folder of this machine", "set a local path", value=folder
        )


def omegaconf_error(error: OmegaConfBaseException) -> ConfigError:
    """An error of OmegaConf with the key that its last lines name."""
    text = " ".join(str(error).partition("\n    full_key")[0].split())
    key = re.search(r"full_key: (\S+)", str(error))
    return ConfigError(
        key[1] if key else "the configuration", f"cannot be read ({text})", "correct it"
    )


def plain_values(cfg: DictConfig) -> Any:
    """The configuration as plain values, interpolations resolved."""
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            verb = "are" if len(missing) > 1 else "is"
            fix = f"give a value on the command line, as {missing[0]}=..."
            raise ConfigError(" and ".join(missing), f"{verb} not set", fix)
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise omegaconf_error(error) from None


def parse(values: Mapping[str, Any], schema: type) -> Any:
    """The dataclass `schema` with these values; keys that are left out keep their default."""
    check_type(values, schema, "")
    return _fill(values, schema)


def _fill(value: Any, hint: Any) -> Any:
    """The checked value itself: pydantic's copy would have texts for keys that are numbers."""
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        filled = {key: _fill(inner, hints[key]) for key, inner in value.items()}
        return typing.cast(type, hint)(**filled)
    return float(value) if isinstance(value, int) and hint in (float, float | None) else value


def _check_nodes(run: RunConfig) -> None:
    """Check that each part is there and can be built."""
    for name in _NODES:
        check_node(getattr(run, name), name, f"conf/{name}/, as {name}=...")
    make = locate(run.optimizer["_target_"], "optimizer")
    with errors_under("optimizer", run.optimizer):
        check_optimizer(make, arguments(run.optimizer))
    if run.data.generate is not None:
        check_node(run.data.generate, "data.generate", "conf/data/, as data=...")
    for name, node in run.logger.items():
        check_node(node, f"logger.{name}", "conf/logger/, as logger=...")


def _check_loss(loss: Any, sources: Mapping[str, Any]) -> None:
    if not isinstance(loss, Mapping) or not loss or is_node(loss):
        check_node(loss, "loss", "conf/loss/, as loss=...")
        return
    for name, node in loss.items():
        check_node(node, f"loss.{name}", f"conf/loss/, as +loss@loss.{name}=...")
        if name not in sources:
            raise unknown_key(f"loss.{name}", sources, "data.train")


def _check_pruner(pruner: Mapping[str, Any], evaluation: EvaluationConfig) -> None:
    if pruner:
        check_node(pruner, "pruner", "conf/pruner/, as pruner=...")
        if not evaluation.evaluators:
            raise ConfigError("pruner", "has no metric to compare trials by", "set data.eval=FILE")


def check_evaluation(evaluation: EvaluationConfig) -> None:
    for name, node in evaluation.evaluators.items():
        check_node(node, f"evaluation.evaluators.{name}", "conf/evaluation/, as evaluation=...")
    if evaluation.best_metric is not None and not evaluation.evaluators:
        raise ConfigError(
            "evaluation.best_metric",
            "has no evaluator to come from",
            "set data.eval=FILE",
            value=evaluation.best_metric,
        )


def check_node(node: Any, key: str, choices: str) -> None:
    if not is_node(node):
        raise ConfigError(key, "has no _target_", f"choose one of {choices}", value=node)
    check_targets(node, key)


class Rows(Protocol):
    """Training rows of a configuration."""

    train: Any
    columns: dict[str, Any]


class Ranks(Protocol):
    """Processes of a configuration."""

    accelerator: Any


def check_sources(data: Rows) -> None:
    """Check `data.train`, and make it sources by name."""
    if not data.train:
        raise ConfigError("data.train", "names no source", "set data.train=FILE")
    _check_one_or_named(data.train)
    nameless = not isinstance(data.train, Mapping) or is_one(data.train)
    data.train = expand_prepared(_by_name(data.train, "train"))
    for name, value in data.train.items():
        key = "data.train" if nameless and name == "train" else f"data.train.{name}"
        spec = parse_spec(value, field=key)
        columns = {**data.columns, **(spec.columns or {})}
        data.train[name] = {**_as_keys(value), "columns": columns or None}


def add_evaluators(evaluators: dict[str, Any], given: Any, columns: Mapping[str, Any]) -> None:
    """An evaluator for each set of `data.eval`, unless a chosen one evaluates on it already.

    Args:
        evaluators: by name; added to.
        given: `data.eval`.
        columns: `data.columns`.
    """
    for name, node in evaluators.items():
        if isinstance(node, Mapping) and "path" in node and node["path"] is None:
            raise ConfigError(
                f"evaluation.evaluators.{name}.path",
                "is not set",
                "set data.eval=FILE, or evaluation=auto",
            )
    sets = _by_name({} if given is None else given, "eval")
    chosen = {name: node for name, node in evaluators.items() if node.get("path") == given}
    for name, node in chosen.items():
        if isinstance(given, Mapping) and not is_one(given):
            del evaluators[name]
            evaluators |= _for_each(sets, node)
    if chosen:
        return
    for name, path in sets.items():
        node = {"_target_": "inbatch.evaluation.evaluator_for", "path": path, "name": name}
        evaluators[name] = {**node, "columns": columns or None}


def _for_each(sets: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluator of a node for each set; a set's own columns and task win."""
    found: dict[str, Any] = {}
    for name, given in sets.items():
        keys = _as_keys(given)
        if keys.pop("task", None) is not None:
            own = {"_target_": "inbatch.evaluation.evaluator_for", "columns": node.get("columns")}
            found[name] = {**own, "path": given, "name": name}
            continue
        columns = {**(node.get("columns") or {}), **(keys.pop("columns", None) or {})}
        path = keys["path"] if keys.keys() == {"path"} else keys
        found[name] = {**node, "path": path, "columns": columns or None, "name": name}
    return found


def _by_name(value: Any, name: str) -> dict[str, Any]:
    """Things by name; one that has none, be it files or the keys of a source, gets `name`."""
    return dict(value) if isinstance(value, Mapping) and not is_one(value) else {name: value}


def _check_one_or_named(train: Any) -> None:
    """Refuse sources by name beside one without a name, and keys of one where there is none."""
    given = train if isinstance(train, Mapping) else {}
    named = [key for key, value in given.items() if isinstance(value, Mapping) and is_one(value)]
    keys = [field.name for field in fields(SourceSpec) if field.name in given]
    keys = [key for key in keys if key not in named]
    if named and is_one(given) and keys:
        raise ConfigError(
            f"data.train.{named[0]}",
            "is a source with a name beside one without",
            "set data.train=FILE, which replaces it, or give all of them names",
        )
    if keys and not is_one(given):
        one_of_them = f", or data.train.{named[0]}.{keys[0]} for that source" if named else ""
        fix = f"set data.train=FILE too{one_of_them}"
        raise ConfigError(f"data.train.{keys[0]}", "belongs to one file", fix)


def _as_keys(source: Any) -> dict[str, Any]:
    """A source as its keys."""
    return dict(source) if isinstance(source, Mapping) else {"path": source}


def check_folders(folders: Mapping[str, str | None]) -> None:
    """Refuse folders that are not of this machine, by key; None for those that are not set."""
    for key, folder in folders.items():
        if folder is not None:
            check_local(key, folder)


def name_cuda(ranks: Ranks) -> None:
    """Set `accelerator` cuda where it is gpu, the name that Lightning has for it."""
    if ranks.accelerator == "gpu":
        ranks.accelerator = "cuda"


def _check_trainer(trainer: TrainerConfig) -> None:
    name_cuda(trainer)
    for name, value in (("max_epochs", trainer.max_epochs), ("max_steps", trainer.max_steps)):
        if value == 0:
            raise ConfigError(
                f"trainer.{name}", "trains nothing", "set at least 1, or -1 for no limit", value=0
            )
    if trainer.max_epochs == trainer.max_steps == -1:
        raise ConfigError(
            "trainer.max_epochs=-1 and trainer.max_steps=-1", "train without end", "set one of them"
        )
