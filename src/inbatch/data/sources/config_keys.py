"""Configuration keys as a user types them, for messages.

A source is known by its key, as ``data.train.offers``. A file may be given without a name too
(``data.train=FILE``, ``data.eval=FILE``, ``data.texts=FILE``): then its path is that key itself, and its
columns are named in ``data.columns``.
"""

from __future__ import annotations

from collections.abc import Mapping

UNNAMED = ("data.train", "data.eval", "data.texts", "mine.corpus")
RETRIEVAL_PARTS = ("corpus", "queries", "qrels")
RETRIEVAL_KEYS = (
    "exclude_same_id",
    "graded",
)  # of an evaluation set of these parts, beside those of a source


def path_key(field: str) -> str:
    """The key that holds the path of a source, or one of several paths (``NAME.path.corpus``)."""
    bare = field in UNNAMED or field.startswith("data.eval.") or ".path." in field
    return field if bare else f"{field}.path"


def columns_key(field: str) -> str:
    """The key that holds the columns of a source."""
    return "data.columns" if field in UNNAMED else f"{field}.columns"


def to_set(field: str, setting: str) -> str:
    """The words that give one source a setting, such as ``on_empty=drop`` or ``columns.key``."""
    if field in ("data.train", "data.texts") and setting.startswith("columns"):
        return f"data.{setting}"
    beside = f" beside {field}=FILE" if field in UNNAMED or field.startswith("data.eval.") else ""
    return f"{field}.{setting}{beside}"


def source_field(parent: str, name: str) -> str:
    """The key of the source `name` of `parent`; without a name of its own it is the last part of `parent`."""
    unnamed = parent in UNNAMED and name == parent.rpartition(".")[2]
    return parent if unnamed else f"{parent}.{name}"


def is_one(value: Mapping[object, object]) -> bool:
    """Whether a mapping holds the keys of one source or evaluation set, not several of them by name."""
    return bool({"path", "hub"} & value.keys()) or {*RETRIEVAL_PARTS} <= value.keys()
