"""The prompt that records carry beside their query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import datasets

from inbatch.data.formats.base import ColumnFormat
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import path_key, to_set
from inbatch.data.sources.files import load_files
from inbatch.data.sources.tables import Files
from inbatch.errors import ConfigError


class Prompts(NamedTuple):
    """The prompts of a source, by role, and the column that the one of its queries comes from."""

    by_role: Mapping[str, str] | None
    column: str | None = None

    def mark(self, roles: Roles) -> Roles:
        """The roles with that column among them."""
        ignored = tuple(name for name in roles.ignored if name != self.column)
        return replace(roles, prompt=self.column, ignored=ignored)


def prompts_of_files(
    files: Files,
    names: Sequence[str],
    format: ColumnFormat,
    given: Mapping[str, str] | None,
    *,
    streaming: bool,
    field: str,
    cache_dir: str | None,
) -> Prompts:
    """The prompts of files: those that are set, and of queries that of the records.

    Args:
        files: Of the source.
        names: Its columns.
        format: That says which column holds prompts.
        given: Prompts that are set, which count.
        streaming: Whether the files are streamed.
        field: Configuration key of the source.
        cache_dir: Where the copy of the files is kept; None for the default of `datasets`.

    Raises:
        ConfigError: Records have different prompts, or their files are streamed.
    """
    column = format.prompt_column(names)
    if column is None or "query" in (given or {}):
        return Prompts(given)
    if streaming:
        problem = f"has prompts in the column '{column}', which streaming does not read"
        raise ConfigError(path_key(field), problem, _fix(field), value=files.paths[0])
    table = load_files(files, Roles("query", column), cache_dir=cache_dir, field=field)
    return _prompts(table.unique(column), column, given, origin=files.paths[0], field=field)


def prompts_of_table(
    table: datasets.Dataset,
    format: ColumnFormat,
    given: Mapping[str, str] | None,
    *,
    origin: str,
    field: str,
) -> Prompts:
    """The same of a table.

    Raises:
        ConfigError: Its rows have different prompts, or values that are none.
    """
    column = format.prompt_column(table.column_names)
    if column is None or "query" in (given or {}):
        return Prompts(given)
    return _prompts(table.unique(column), column, given, origin=origin, field=field)


def _prompts(
    values: Iterable[object],
    column: str,
    given: Mapping[str, str] | None,
    *,
    origin: str,
    field: str,
) -> Prompts:
    values = ["" if value is None else value for value in values]
    for value in values:
        if not isinstance(value, str):
            raise ConfigError(
                path_key(field),
                f"has {value!r} in the column '{column}' of prompts",
                f"store texts, or {_fix(field)}",
                value=origin,
            )
    found = sorted({str(value) for value in values})
    if len(found) > 1:
        raise ConfigError(
            path_key(field),
            f"has {len(found)} prompts in the column '{column}' ({', '.join(map(repr, found[:3]))})",
            f"write one source for each prompt, or {_fix(field)}",
            value=origin,
        )
    prompt = found[0] if found else ""
    return Prompts({**(given or {}), **({"query": prompt} if prompt else {})} or None, column)


def _fix(field: str) -> str:
    return (
        f"set {to_set(field, 'prompts.query=PROMPT')}, or {to_set(field, 'format.prompt=ignore')}"
    )
