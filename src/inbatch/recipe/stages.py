"""A recipe's file and the keys of the command line -> its stages, in order.

::

    about: what it does, in a line
    keys:                          # what a user sets, ??? where there is no default
      data:
        train: ???
        eval: null
      teacher: minilm
    stages:
      teacher:
        command: train             # of `inbatch`
        keys: [encoder=${teacher}, data.train=${data.train}]
      student:
        command: train
        keys: [encoder=tiny, guide.model=${folder.teacher}/model, data.train=${data.train}]
        unless: data.eval=null     # left out where a key has this value

``${folder.NAME}`` is the output directory of a stage; whoever names it comes after that stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inbatch.errors import ConfigError, did_you_mean

_FOLDER = re.compile(r"\$\{folder\.([\w-]+)\}")
_NAME = re.compile(r"[A-Za-z][\w-]*")


@dataclass(frozen=True, slots=True)
class Stage:
    """One command of a recipe.

    Args:
        name: of the stage and its folder.
        command: of `inbatch`.
        arguments: of the command, its output directory included.
        folder: its output directory.
        after: stages whose folders it reads.
        slurm: keys of its job, without ``slurm.``, where it is one.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    folder: Path
    after: tuple[str, ...]
    slurm: tuple[str, ...] = ()


def recipe_files(folders: Sequence[Path]) -> dict[str, Path]:
    """Recipes by name; those of the first folder win."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def read_recipe(path: Path, name: str) -> dict[str, Any]:
    """Read a file.

    Raises:
        ConfigError: it is not a recipe.
    """
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            "recipe", f"cannot be read ({reason})", "correct it", value=name
        ) from None
    stages = read.get("stages") if isinstance(read, dict) else None
    if not isinstance(stages, dict) or not stages:
        fix = "give it stages, {name: {command: train, keys: [...]}}"
        raise ConfigError("recipe", "has no stages", fix, value=name)
    for stage, node in stages.items():
        _check_stage(str(stage), node)
    return dict(read)


def make_stages(
    recipe: Mapping[str, Any],
    overrides: Sequence[str],
    output_dir: Path,
    *,
    commands: Sequence[str],
) -> list[Stage]:
    """The stages that a command line asks for, each after those that it needs.

    Args:
        recipe: as read.
        overrides: ``key=value`` of the recipe's keys, and ``STAGE.key=value``, a stage's last arguments.
        output_dir: whose folders the stages get.
        commands: those of `inbatch` that a stage may be.

    Raises:
        ConfigError: a key that the recipe lacks, or one that has no value.
    """
    nodes: dict[str, Any] = {str(name): node for name, node in recipe["stages"].items()}
    given, of_stage = _split(overrides, nodes)
    keys = _with_values(recipe.get("keys") or {}, given, nodes)
    left_out = {name for name, node in nodes.items() if _is_left_out(node, keys)}
    keys["folder"] = {name: str(output_dir / name) for name in nodes}
    stages: dict[str, Stage] = {}
    for name, node in nodes.items():
        if name in left_out:
            continue
        command = str(node["command"])
        if command not in commands:
            fix = did_you_mean(command, commands) or f"use one of {', '.join(commands)}"
            raise ConfigError(f"stages.{name}.command", "is not a command", fix, value=command)
        written = [str(argument) for argument in node.get("keys") or []]
        written += of_stage.get(name, [])
        named = dict.fromkeys(n for text in written for n in _FOLDER.findall(text))
        needs = tuple(each for each in named if each != name)
        _check_needs(name, needs, left_out=left_out, before=stages, all_stages=nodes)
        filled = (_resolved(text, keys, f"stages.{name}.keys") for text in written)
        arguments = [argument for argument in filled if argument is not None]
        slurm = tuple(a[6:] for a in arguments if a.startswith("slurm."))
        arguments = [a for a in arguments if not a.startswith("slurm.")]
        folder = output_dir / name
        stages[name] = Stage(
            name, command, (*arguments, f"output_dir={folder}"), folder, needs, slurm
        )
    return list(stages.values())


def _check_stage(name: str, node: Any) -> None:
    place = f"stages.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(place, "is not a name", "use letters, digits, - and _")
    if not isinstance(node, dict) or "command" not in node:
        raise ConfigError(place, "has no command", f"set {place}.command, as train")
    unknown = sorted({*map(str, node)} - {"command", "keys", "unless"})
    if unknown:
        fix = did_you_mean(unknown[0], ["command", "keys", "unless"])
        raise ConfigError(
            f"{place}.{unknown[0]}",
            "is not a key of a stage",
            fix or "use command, keys and unless",
        )
    if not isinstance(node.get("keys") or [], list):
        raise ConfigError(f"{place}.keys", "is not a list", "write one key=value a line")


def _split(
    overrides: Sequence[str], stages: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Keys of the recipe with their values, and further arguments by stage."""
    keys: dict[str, str] = {}
    of_stage: dict[str, list[str]] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(repr(override), "is not key=value", "write key=value")
        first, _, rest = key.partition(".")
        if first in stages and rest:
            of_stage.setdefault(first, []).append(f"{rest}={value}")
        else:
            keys[key] = value
    return keys, of_stage


def _with_values(
    defaults: Mapping[str, Any], given: Mapping[str, str], stages: Mapping[str, Any]
) -> DictConfig:
    keys = OmegaConf.create(dict(defaults))
    known = [*_leaves(defaults), *(f"{name}.KEY" for name in stages)]
    for key, value in given.items():
        if key not in known:
            fix = did_you_mean(key, known) or f"use one of {', '.join(known)}"
            raise ConfigError(key, "is not a key of the recipe", fix, value=value)
        try:
            OmegaConf.update(keys, key, yaml.safe_load(value))
        except yaml.YAMLError:
            OmegaConf.update(keys, key, value)
    missing = sorted(OmegaConf.missing_keys(keys))
    if missing:
        raise ConfigError(missing[0], "has no value", f"set {missing[0]}=...")
    return keys


def _leaves(node: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{place}{name}.")
        else:
            yield f"{place}{name}"


def _is_left_out(node: Mapping[str, Any], keys: DictConfig) -> bool:
    key, _, value = str(node.get("unless") or "").partition("=")
    return bool(key) and OmegaConf.select(keys, key) == yaml.safe_load(value)


def _check_needs(
    name: str,
    needs: Sequence[str],
    *,
    left_out: set[str],
    before: Mapping[str, Stage],
    all_stages: Mapping[str, Any],
) -> None:
    for need in needs:
        place = f"stages.{name}.keys"
        if need in left_out:
            fix = "leave this stage out by the same unless"
            raise ConfigError(place, f"names the folder of {need}, which is left out", fix)
        if need not in all_stages:
            fix = did_you_mean(need, list(all_stages)) or f"use one of {', '.join(all_stages)}"
            raise ConfigError(place, f"names the folder of {need}, which is no stage", fix)
        if need not in before:
            fix = f"write {need} above {name}"
            raise ConfigError(place, f"names the folder of {need}, which comes later", fix)


def _resolved(text: str, keys: DictConfig, place: str) -> str | None:
    """An argument with the values in place; None where it is but a key whose value is null."""
    try:
        value = OmegaConf.create({**keys, "argument": text})["argument"]
    except OmegaConfBaseException as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise ConfigError(
            place, f"cannot be filled in ({reason})", "correct it", value=text
        ) from None
    whole = re.fullmatch(r"[^=]+=\$\{([\w.]+)\}", text)
    if whole is not None and OmegaConf.select(keys, whole[1]) is None:
        return None
    return str(value)
