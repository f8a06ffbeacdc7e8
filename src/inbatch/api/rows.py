"""Rows that a Python program hands in: files, a data set, a data frame, or a list of dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow as pa

from inbatch.data.sources.columns import SCORES
from inbatch.data.sources.load import load_table
from inbatch.data.sources.source import Source
from inbatch.errors import ConfigError
from inbatch.evaluation import Evaluator, evaluator_for

_KINDS = "set it to files, a datasets.Dataset, a pandas DataFrame or a list of dicts"


def by_name(value: Any, name: str) -> dict[str, Any]:
    """Things by the names that the caller gave them; a single one gets `name`."""
    if not isinstance(value, Mapping) or isinstance(value, datasets.DatasetDict):
        return {name: value}
    if {"path", "hub"} & value.keys():  # the keys of one source
        return {name: value}
    return {str(key): each for key, each in value.items()}


def to_table(value: Any, *, key: str) -> datasets.Dataset | None:
    """Rows in memory as a data set; None for what names files: a path, a list of them, or ``{path: ...}``.

    Args:
        value: see `inbatch.train`.
        key: the argument that it came from, for messages.

    Raises:
        ConfigError: it is none of these, or rows whose values do not form columns.
    """
    if isinstance(value, datasets.DatasetDict):
        splits = ", ".join(map(str, value))
        raise ConfigError(key, f"has several splits ({splits})", "pass one, such as data['train']")
    if isinstance(value, str | Path | Mapping) or _is_paths(value):
        return None
    if isinstance(value, list) and not value:
        raise ConfigError(key, "holds no rows", "give at least one")
    if isinstance(value, datasets.Dataset):
        return value
    try:
        if isinstance(value, pandas.DataFrame):
            return datasets.Dataset.from_pandas(value, preserve_index=False)
        if isinstance(value, Sequence) and all(isinstance(row, Mapping) for row in value):
            names = dict.fromkeys(name for row in value for name in row)  # not all rows have all
            return datasets.Dataset.from_list([{n: row.get(n) for n in names} for row in value])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            key, f"has a column of mixed types ({reason})", "give each column one type"
        ) from None
    raise ConfigError(key, f"is a {type(value).__name__}, which holds no rows", _KINDS)


def file_spec(value: Any) -> Any:
    """Files as the configuration names them: text in place of `Path`."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [str(path) for path in value]
    if isinstance(value, Mapping):
        return {str(key): file_spec(each) for key, each in value.items()}
    return value


def placeholder(table: datasets.Dataset | None) -> str:
    """The text that the configuration has in place of a path for rows or objects in memory."""
    return "(in memory)" if table is None else f"(in memory: {table.num_rows:,} rows)"


def make_evaluator(
    name: str, value: Any, *, columns: Mapping[str, Any], key: str
) -> Evaluator | None:
    """The evaluator of rows in memory, or `value` if it is one; None for what names files.

    Args:
        name: prefix of the metrics.
        value: an evaluator, or rows as `to_table` takes them.
        columns: roles of the columns; a key or scores of the training data have no meaning here.
        key: the argument that it came from, for messages.

    Raises:
        ConfigError: rows that cannot be evaluated on.
    """
    if hasattr(value, "primary_metric"):
        evaluator: Evaluator = value
        return evaluator
    table = to_table(value, key=key)
    if table is None:
        return None
    roles = {role: column for role, column in columns.items() if role not in ("key", *SCORES)}
    source: Source = load_table(name, table, columns=roles or None, field=key)
    return evaluator_for(source, name=name)


def _is_paths(value: Any) -> bool:
    is_list = isinstance(value, list | tuple)
    return is_list and len(value) > 0 and all(isinstance(path, str | Path) for path in value)
