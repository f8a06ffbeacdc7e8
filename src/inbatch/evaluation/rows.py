"""Reads rows to evaluate on (files, or anything else that `data.train` takes) as texts and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inbatch.data.sources.config_keys import path_key
from inbatch.data.sources.load import Source, load_sources
from inbatch.errors import ConfigError
from inbatch.evaluation.base import EvaluationRows

RowSource = str | Sequence[str] | Mapping[str, object] | Source


@dataclass(frozen=True, slots=True)
class TextRows:
    """Texts by column (query, positive, negatives) and labels, in the order of the source."""

    texts: tuple[list[str], ...]
    labels: np.ndarray | None  # [N] float32


def read_texts(
    path: RowSource,
    *,
    columns: Mapping[str, object] | None,
    limit: int | None,
    field: str,
) -> TextRows:
    """Read all rows into memory.

    Args:
        path: a file, a glob or a list of them; or the keys of a training source, such as
            ``{hub: ..., split: ...}``; or a loaded `Source`.
        columns: ``{query, positive, negatives, label}`` -> column names; None recognises common
            names.
        limit: the first rows only; None for all.
        field: configuration key of the evaluator, for messages.

    Raises:
        ConfigError: see `load_source`; rows with lists of documents, or with prompts.
    """
    source = load_source(path, columns=columns, limit=limit, field=field)
    if source.is_ragged:
        raise ConfigError(
            field, "has lists of documents, which only retrieval takes", "set evaluation=retrieval"
        )
    if source.prompts:
        raise ConfigError(
            f"{path_key(source.field)}.prompts",
            "has an effect in retrieval only",
            "set the encoder's prompts instead",
            value=source.prompts,
        )
    num_rows = source.num_rows if limit is None else min(limit, source.num_rows)
    texts, labels = source.read(np.arange(num_rows))
    return TextRows(tuple(texts), labels)


def check_columns(rows: TextRows, *, num: int, roles: str, field: str) -> None:
    """Refuse rows that do not have exactly `num` text columns, for these roles.

    Raises:
        ConfigError: there are fewer or more.
    """
    if len(rows.texts) != num:
        raise ConfigError(
            f"{field}.columns",
            f"gives {len(rows.texts)} text columns where {roles} are needed",
            "name them",
        )


def read_labelled_pairs(
    path: RowSource, *, columns: Mapping[str, object] | None, limit: int | None, field: str
) -> tuple[list[str], list[str], np.ndarray]:
    """First texts, second texts and labels [N] of pairs, at least two labels of which differ.

    Raises:
        ConfigError: see `read_texts`; further text columns, no labels, or labels that are all equal.
    """
    rows = read_texts(path, columns=columns, limit=limit, field=field)
    check_columns(rows, num=2, roles="query and positive", field=field)
    if rows.labels is None:
        raise ConfigError(
            f"{field}.columns.label",
            "is not set, and no column has a known label name",
            "name it, beside query and positive",
        )
    if rows.labels.min() == rows.labels.max():
        raise ConfigError(
            f"{field}",
            f"has {rows.labels[0]:g} for all {len(rows.labels)} labels, so there is nothing to tell apart",
            f"choose another file or a larger {field}.limit",
        )
    first, second = rows.texts
    return first, second, rows.labels


def pair_rows(first: Sequence[str], second: Sequence[str], labels: np.ndarray) -> EvaluationRows:
    """Labelled pairs as a card shows them."""
    columns = {"query": first, "positive": second, "label": labels.tolist()}
    same = all(a == b for a, b in zip(first, second))
    note = "every pair is of two equal texts, which no similarity but dot tells apart (nan)"
    return EvaluationRows(len(labels), "evaluation samples", columns, (note,) if same else ())


def check_limit(limit: int | None, *, field: str) -> int | None:
    """Return `limit`, a number of rows or queries, or None.

    Raises:
        ConfigError: it is below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(
            f"{field}.limit", "is below 1", "set at least 1, or null for all", value=limit
        )
    return limit


def load_source(
    path: RowSource, *, columns: Mapping[str, object] | None, limit: int | None, field: str
) -> Source:
    """The source that `read_texts` reads; arguments as there.

    Raises:
        ConfigError: whatever `load_sources` finds wrong with files, columns and rows.
    """
    check_limit(limit, field=field)
    if isinstance(path, Source):
        if columns:
            raise ConfigError(
                f"{field}.columns",
                "has no effect on a source that is loaded",
                "set them where it is loaded",
            )
        return path
    spec: dict[str, object] = dict(path) if isinstance(path, Mapping) else {"path": path}
    for key, value in (("columns", columns or None), ("limit", limit)):
        if value is not None:
            if spec.get(key) is not None:
                raise ConfigError(
                    f"{field}.{key}", f"is given inside {field}.path too", "keep one of them"
                )
            spec[key] = value
    parent, _, name = field.rpartition(".")
    return load_sources({name: spec}, field=parent)[0]
