"""Rows that a Python program hands in: files, a data set, a data frame, or a list of dicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow as pa

from inbatch.data.sources.column_names import SCORES
from inbatch.data.sources.config_keys import is_one
from inbatch.data.sources.load import load_table
from inbatch.data.sources.mixed_columns import WAS_TEXT
from inbatch.data.sources.spec import SourceSpec
from inbatch.errors import ConfigError
from inbatch.evaluation import Evaluator, evaluator_for

_SINGLE = (str, int, float, np.integer, np.floating)  # values that may stand beside lists of such
_KINDS = "set it to files, a datasets.Dataset, a pandas DataFrame or a list of dicts"


def by_name(value: Any, name: str) -> dict[str, Any]:
    """Things by the names that the caller gave them; a single one gets `name`."""
    if not isinstance(value, Mapping) or isinstance(value, datasets.DatasetDict):
        return {name: value}
    if is_one(value):
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
            return datasets.Dataset.from_pandas(_plain_frame(value), preserve_index=False)
        if isinstance(value, Sequence) and all(isinstance(row, Mapping) for row in value):
            names = dict.fromkeys(name for row in value for name in row)  # not all rows have all
            columns: dict[Any, list[Any]] = {}
            for name in names:
                columns |= _of_one_kind(name, [row.get(name) for row in value])
            return datasets.Dataset.from_dict(columns)
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
    source = load_table(name, table, SourceSpec(columns=roles or None), field=key)
    return evaluator_for(source, name=name)


def _plain(values: Iterable[Any]) -> list[Any]:
    """Values of a column with lists for arrays and tuples, and None for what pandas has where nothing is."""
    plain = [v.tolist() if isinstance(v, np.ndarray) else v for v in values]
    plain = [list(value) if isinstance(value, tuple) else value for value in plain]
    if any(isinstance(value, str | list) for value in plain):
        plain = [None if isinstance(v, float | np.floating) and np.isnan(v) else v for v in plain]
    return [None if value is pandas.NA else value for value in plain]


def _of_one_kind(name: Any, values: Iterable[Any]) -> dict[Any, list[Any]]:
    """A column of plain values; where some are lists, texts and numbers as lists of one, which another column
    marks.
    """
    plain = _plain(values)
    single = [isinstance(v, _SINGLE) and not isinstance(v, bool) for v in plain]
    if not any(single) or not any(isinstance(value, list) for value in plain):
        return {name: plain}
    lists = [[value] if alone else value for value, alone in zip(plain, single)]
    return {name: lists, f"{WAS_TEXT}{name}": single}


def _plain_frame(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The same for those columns that may hold anything."""
    if not frame.columns.is_unique:
        return frame
    plain = frame.copy(deep=False)
    for name in (name for name in frame.columns if frame[name].dtype == object):
        for key, values in _of_one_kind(name, frame[name]).items():
            plain[key] = pandas.Series(values, frame.index, object)
    return plain


def _is_paths(value: Any) -> bool:
    is_list = isinstance(value, list | tuple)
    return is_list and len(value) > 0 and all(isinstance(path, str | Path) for path in value)
