"""The prompt that records carry beside their query."""

from __future__ import annotations

import pyarrow.compute as pc

from inbatch.data.sources.columns import Roles
from inbatch.data.sources.config_keys import path_key, to_set
from inbatch.data.sources.files import load_files
from inbatch.data.sources.tables import Files
from inbatch.errors import ConfigError


def queries_prompt(
    files: Files, column: str, *, streaming: bool, field: str, cache_dir: str | None
) -> str:
    """The one prompt of all records; "" where none has one.

    Args:
        files: Of the source.
        column: That holds the prompts.
        streaming: Whether the files are streamed.
        field: Configuration key of the source.
        cache_dir: Where the copy of the files is kept; None for the default of `datasets`.

    Raises:
        ConfigError: Records have different prompts, or their files are streamed.
    """
    fix = f"set {to_set(field, 'prompts.query=PROMPT')}, or {to_set(field, 'format.prompt=ignore')}"
    if streaming:
        problem = f"has prompts in the column '{column}', which streaming does not read"
        raise ConfigError(path_key(field), problem, fix, value=files.paths[0])
    table = load_files(files, Roles("query", column), cache_dir=cache_dir, field=field)
    found = sorted({value or "" for value in pc.unique(table.data.column(column)).to_pylist()})
    if len(found) > 1:
        raise ConfigError(
            path_key(field),
            f"has {len(found)} prompts in the column '{column}' ({', '.join(map(repr, found[:3]))})",
            f"write one source for each prompt, or {fix}",
            value=files.paths[0],
        )
    return found[0] if found else ""
