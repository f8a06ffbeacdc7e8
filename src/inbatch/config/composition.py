"""Composition by Hydra, in which a file that is chosen on the command line is taken whole.

Importing this module tells Hydra the schema's defaults, under the names that the first entry of
conf/train.yaml, conf/evaluate.yaml and so on has.

Hydra merges files in their order, so an experiment's ``encoder.model`` would be set over
``encoder=minilm`` of the command line too, and a model be trained that was not asked for. Here the keys
that other files set in a group are left out where the command line chooses that group's file. Those of
conf/local stay: they are settings of a machine, whatever it trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import asdict
from functools import lru_cache
from typing import NamedTuple

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from inbatch import compat
from inbatch.config.commands import CONFIGS
from inbatch.config.schema import CONF

# As plain values: OmegaConf's own checks of a dataclass end in messages without the key.
for _name, _config in CONFIGS.items():
    ConfigStore.instance().store(f"{_name}_keys", asdict(_config.keys()))

_OF_THE_MACHINE = "local/"


class Choice(NamedTuple):
    """A choice of the command line: ``encoder=minilm``, ``loss@loss.pairs=cosent``."""

    files: tuple[str, ...]  # as Hydra names them: encoder/minilm
    package: str  # where their keys go: encoder, loss.pairs


def compose(config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose a file of `conf/` as the commands do.

    Args:
        config_name: train, evaluate or another of `CONFIGS`.
        overrides: in Hydra's grammar.
    """
    with whole_choices(), hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(config_name, overrides=list(overrides))


def whole_choices() -> AbstractContextManager[None]:
    """Let Hydra, where it starts inside, take files that are chosen on the command line whole."""
    return compat.hydra_files_edited(keep_choices_whole)


def keep_choices_whole(
    config: DictConfig,
    file: ResultDefault,
    *,
    files: Sequence[ResultDefault],
    overrides: Sequence[str],
) -> DictConfig:
    """Return what a file sets, without the keys of groups for which the command line chooses another.

    Args:
        config: what it sets.
        file: its place in the list of files.
        files: all of them.
        overrides: the command line.
    """
    if str(file.config_path).startswith(_OF_THE_MACHINE):
        return config
    lineage = list(_lineage(file, files))
    for choice in _choices(tuple(overrides)):
        chosen = any(_is_chosen(each, choice) for each in files)
        if chosen and not any(_is_chosen(each, choice) for each in lineage):
            config = _without(config, choice.package)
    return config


@lru_cache(maxsize=1)  # it is asked for each file
def _choices(overrides: tuple[str, ...]) -> list[Choice]:
    """What overrides choose, if they name files; a sweep's trials have one of its choices each."""
    found = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if not override.is_sweep_override() and not override.is_delete():
            group, value = override.key_or_group, override.value()
            names = value if isinstance(value, list) else [value]
            package = override.package or group.replace("/", ".")
            found.append(Choice(tuple(f"{group}/{name}" for name in names), package))
    return found


def _is_chosen(file: ResultDefault, choice: Choice) -> bool:
    """Whether a file is that of a choice; the same file further inside, at loss.pairs, is another's."""
    inside = str(file.package).startswith(f"{choice.package}.")
    return file.config_path in choice.files and not inside


def _lineage(file: ResultDefault, files: Sequence[ResultDefault]) -> Iterator[ResultDefault]:
    """A file, the one whose defaults list names it, and so on."""
    found: ResultDefault | None = file
    while found is not None:
        yield found
        found = next((each for each in files if each.config_path == found.parent), None)


def _without(config: DictConfig, key: str) -> DictConfig:
    """The configuration without a key; itself where it does not have it."""
    parent, _, name = key.rpartition(".")
    found = _inside(config, parent)
    if found is None or name not in found:
        return config
    copied = deepcopy(config)  # Hydra keeps the file for further compositions
    node = _inside(copied, parent)
    assert node is not None
    with open_dict(node):
        del node[name]
    return copied


def _inside(config: DictConfig, key: str) -> DictConfig | None:
    """The mapping at a key, the configuration itself for an empty one; None where there is none."""
    node = OmegaConf.select(config, key, throw_on_missing=False) if key else config
    return node if isinstance(node, DictConfig) and node else None
