"""One entry of `data.train`: the keys a user may write, checked before any file is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from inbatch.data.formats.choose import AUTO, check_format
from inbatch.data.sources.choice import ListChoice, check_choice
from inbatch.data.sources.columns import suggest
from inbatch.data.sources.reading import Reading, parse_rules
from inbatch.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """Where the rows of a source are and which of them to use."""

    path: str | Sequence[str] | None = None  # files, globs; or else:
    hub: str | None = None  # name of a hub data set
    subset: str | None = None  # its configuration, where it has several
    split: str = "train"
    revision: str | None = None
    # {query, positive, negatives, label, key, positive_score, negative_score}
    columns: Mapping[str, object] | None = None
    lists: bool | None = None  # whether texts like "['a', 'b']" are lists; null refuses them
    limit: int | None = None  # the first rows only
    prompts: Mapping[str, str] | None = None  # see columns.resolve_prompts
    on_bad_row: Literal["error", "drop"] = "error"  # rows that cannot be used, for whatever reason
    on_empty: Literal["error", "drop"] | None = None  # rows with nothing in a field, see empty
    format: str | Mapping[str, object] = AUTO  # its name, or its keys; see data/formats
    csv: Mapping[str, str | None] | None = None  # {quote, delimiter, escape}, see reading.py
    # Which documents of its lists a row brings into a batch, see choice.ListChoice.
    max_negatives: int | None = None
    negatives: Literal["first", "sample"] = "first"
    positives: Literal["all", "sample", "first"] = "all"
    streaming: bool = False  # leave the rows where they are, see streamed.py
    buffer_files: int = 8  # files whose rows are mixed, with streaming

    @property
    def empty(self) -> Literal["error", "drop"]:
        """What is done with a row that has no text, label or key; as with any bad row, unless said."""
        return self.on_bad_row if self.on_empty is None else self.on_empty

    @property
    def raw(self) -> dict[str, object]:
        """The keys that are set of those that say how raw data are read."""
        keys = {"format": self.format, "csv": self.csv, "lists": self.lists}
        return {key: value for key, value in keys.items() if value not in (None, AUTO)}

    def reading(self, *, field: str) -> Reading:
        """How the files are read.

        Raises:
            ConfigError: Rules for csv files that none can have.
        """
        return Reading(parse_rules(self.csv, field=field), self.on_bad_row, self.lists)

    @property
    def choice(self) -> ListChoice:
        """Which documents of its lists a row brings into a batch."""
        return ListChoice(
            max_negatives=self.max_negatives, negatives=self.negatives, positives=self.positives
        )


def parse_spec(value: Any, *, field: str) -> SourceSpec:
    """The keys of a source, or a bare path (or list of paths).

    Raises:
        ConfigError: An unknown key or a value that no source can have.
    """
    keys = [item.name for item in fields(SourceSpec)]
    values = dict(value) if isinstance(value, Mapping) else {"path": value}
    for key in values:
        if key not in keys:
            raise ConfigError(f"{field}.{key}", "is not a valid key", suggest(str(key), keys))
    spec = SourceSpec(**values)
    if (spec.path is None) == (spec.hub is None):
        raise ConfigError(field, "needs either a path or a hub name", "write one of them")
    for key, choice in (("on_bad_row", spec.on_bad_row), ("on_empty", spec.empty)):
        if choice not in ("error", "drop"):
            raise ConfigError(f"{field}.{key}", "is not known", "set error or drop", value=choice)
    check_format(spec.format, field=f"{field}.format")
    if spec.lists not in (None, True, False):
        raise ConfigError(
            f"{field}.lists", "is not true or false", "set one of them, or null", value=spec.lists
        )
    if spec.lists and spec.path is None:
        raise ConfigError(f"{field}.lists", "is for files", "store lists, or remove it", value=True)
    if spec.csv is not None and spec.path is None:
        raise ConfigError(f"{field}.csv", "is for csv and tsv files", "remove it", value=spec.csv)
    spec.reading(field=field)
    if spec.limit is not None and (not isinstance(spec.limit, int) or spec.limit < 1):
        raise ConfigError(
            f"{field}.limit",
            "is not a whole number of at least 1",
            "set one, or null for all rows",
            value=spec.limit,
        )
    check_choice(spec.choice, field=field)
    _check_streaming(spec, values, field=field)
    return spec


def _check_streaming(spec: SourceSpec, values: Mapping[str, Any], *, field: str) -> None:
    if not isinstance(spec.streaming, bool):
        raise ConfigError(
            f"{field}.streaming", "is not true or false", "set one of them", value=spec.streaming
        )
    if not isinstance(spec.buffer_files, int) or spec.buffer_files < 1:
        raise ConfigError(
            f"{field}.buffer_files",
            "is not a whole number of at least 1",
            "set one",
            value=spec.buffer_files,
        )
    if spec.streaming and (spec.hub is not None or spec.limit is not None):
        what = "a hub data set" if spec.hub is not None else f"a limit ({spec.limit})"
        raise ConfigError(
            f"{field}.streaming", f"reads whole files, not {what}", "remove one of them", value=True
        )
    if "buffer_files" in values and not spec.streaming:
        raise ConfigError(
            f"{field}.buffer_files",
            "has an effect only with streaming",
            f"set {field}.streaming=true, or remove it",
            value=spec.buffer_files,
        )
