"""Private names of Hydra."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import IConfigRepository
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.default_element import ResultDefault
    from hydra.core.override_parser.types import Override
    from hydra.plugins.config_source import ConfigResult
    from hydra.plugins.launcher import Launcher
    from omegaconf import DictConfig


def hydra_parser() -> argparse.ArgumentParser:
    """Return the parser of Hydra's own options; its public entry points parse and run in one go."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser()


def hydra_options_with_value() -> list[str]:
    """Return the names of Hydra's options that take a value; argparse has no public list of options."""
    actions = hydra_parser()._actions
    return [name for action in actions if action.nargs is None for name in action.option_strings]


def serial_launcher() -> Launcher:
    """Return Hydra's default launcher, which runs jobs in this process one after another."""
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    return BasicLauncher()


def trials_of(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each job of a sweep, in the order of Hydra's default sweeper.

    The sweeper has no public name, and the one in its configuration cannot be asked without a run.

    Raises:
        hydra.errors.HydraException: values cannot be counted, as those of an interval.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (trials,) = BasicSweeper.split_arguments(list(overrides), max_batch_size=None)
    return trials


class EditFile(Protocol):
    """Returns what Hydra is to take of a file; see `inbatch.config.composition`."""

    def __call__(
        self,
        config: DictConfig,
        file: ResultDefault,
        *,
        files: Sequence[ResultDefault],
        overrides: Sequence[str],
    ) -> DictConfig:
        """Return what to take."""
        ...


@contextmanager
def hydra_files_edited(edit: EditFile) -> Iterator[None]:
    """Let an application of Hydra that starts inside pass each YAML file to a function before it merges it.

    Hydra has plugins for where files come from, but none for what it takes of them beside the others. The
    loader is pickled with the jobs of launchers, so the trials of a sweep are composed alike.
    """
    from hydra._internal import hydra as internal

    _without_needless_work()
    loader = internal.ConfigLoaderImpl
    internal.ConfigLoaderImpl = partial(_editing_loader(), edit)  # type: ignore
    try:
        yield
    finally:
        internal.ConfigLoaderImpl = loader  # type: ignore[misc]


@cache
def _without_needless_work() -> None:
    """Leave out a quarter of what Hydra does to compose a configuration, as it does twice for a command.

    For each file it lists all choices, in case a name among its defaults has an interpolation. And for each
    configuration it copies the whole store of structured configs, of which it copies again what it reads.
    """
    from hydra._internal import defaults_list
    from hydra.core.config_store import ConfigStore

    choices_of = defaults_list._create_interpolation_map

    def needed_choices(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
        if any(not default.is_self() and default.is_interpolation() for default in defaults):
            return choices_of(overrides, defaults, self_added)
        return None  # nothing asks for it

    defaults_list._create_interpolation_map = needed_choices  # type: ignore[assignment]
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


@cache
def _editing_loader() -> type[ConfigLoaderImpl]:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from omegaconf import DictConfig

    class EditingLoader(ConfigLoaderImpl):
        def __init__(self, edit: EditFile, config_search_path: ConfigSearchPath) -> None:
            super().__init__(config_search_path)
            self._edit = edit
            self._overrides: list[str] = []
            self._files: list[ResultDefault] = []

        def load_configuration(
            self, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
        ) -> DictConfig:
            self._overrides = overrides
            return super().load_configuration(config_name, overrides, *args, **kwargs)

        def _compose_config_from_defaults_list(
            self, defaults: list[ResultDefault], repo: IConfigRepository
        ) -> DictConfig:
            self._files = defaults
            return super()._compose_config_from_defaults_list(defaults, repo)

        def _load_single_config(
            self, default: ResultDefault, repo: IConfigRepository
        ) -> ConfigResult:
            loaded = super()._load_single_config(default, repo)
            if loaded.is_schema_source or not isinstance(loaded.config, DictConfig):
                return loaded
            config = self._edit(
                loaded.config, default, files=self._files, overrides=self._overrides
            )
            return replace(loaded, config=config)

    return EditingLoader
