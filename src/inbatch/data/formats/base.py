"""What the formats have in common: rows, records that cannot be used, and how a format is recognised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import fsspec

from inbatch.data.sources.dropped import PLACES, Dropped, Intake

_LONG = 40  # characters of a value that a message shows
OnBad = Literal["error", "drop"]


class Row(NamedTuple):
    """A query with its documents, and a label where they have one."""

    query: str
    positive: list[str]
    negative: list[str]
    label: float | None = None


class BadRecordError(Exception):
    """A record that its format does not allow.

    Args:
        problem: A predicate, with values of the record.
        fix: What to do about it.
        reason: Why the record is left out, without its values, so that records are counted by it. "": no row
            can be made of it, and the problem stands beside its place.
        empty: Whether nothing is there, so that `on_empty` leaves it out, not `on_bad_row`.
    """

    def __init__(self, problem: str, fix: str, *, reason: str = "", empty: bool = False) -> None:
        super().__init__(problem, fix)
        self.problem, self.fix, self.reason, self.empty = problem, fix, reason, empty


@dataclass
class Tally:
    """Counts what is left out, by reason.

    intake: what was read, once all of it is; None where that is rows.
    """

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    intake: Intake | None = None

    def add(self, reason: str, place: Callable[[], str], count: int = 1) -> None:
        """Count `count` records; `place` is called for the first ones only."""
        self.counts[reason] += count
        kept = self.places.setdefault(reason, [])
        if len(kept) < PLACES:
            kept.append(place())

    def dropped(self) -> tuple[Dropped, ...]:
        """By reason, the most frequent first."""
        return tuple(
            Dropped(reason, count, tuple(self.places[reason]))
            for reason, count in self.counts.most_common()
        )


class Head:
    """What formats are recognised by: the kind of files, the columns and the first records.

    Args:
        path: The first file, or the folder.
        names: Gives the columns, none where a record is a list; called when somebody asks for them.
        records: Gives the first records, likewise.
    """

    def __init__(
        self, path: str, names: Callable[[], Sequence[str]], records: Callable[[], list[Any]]
    ) -> None:
        self.path, self._names, self._records = path, names, records

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Columns."""
        return tuple(self._names())

    @cached_property
    def records(self) -> list[Any]:
        """The first records: mappings, or lists."""
        return self._records()

    @property
    def is_folder(self) -> bool:
        """Whether the data are a folder."""
        fs, place = fsspec.core.url_to_fs(self.path)
        return bool(fs.isdir(place))

    def has(self, *names: str) -> bool:
        """Whether all of these are columns."""
        return set(names) <= set(self.names)

    def holds(self, name: str, *kinds: type) -> bool:
        """Whether a value of this column, among the first records, is of one of these kinds."""
        rows = (record for record in self.records if isinstance(record, Mapping))
        return any(isinstance(record.get(name), kinds) for record in rows)


class Format(Protocol):
    """What every format can do."""

    def recognise(self, head: Head) -> str:
        """Why data that begin so have this format, as "its records have ..."; "" where they have not."""


@runtime_checkable
class ColumnFormat(Format, Protocol):
    """Columns that are the rows, found by common names."""

    def prompt_column(self, names: Sequence[str]) -> str | None:
        """The column of a prompt that belongs to the queries."""


@runtime_checkable
class RecordFormat(Format, Protocol):
    """Records that are turned into rows."""

    @property
    def joined(self) -> str:
        """What records are called, as "pairs", if those of one query, wherever they are, become one row."""

    def row(self, record: Any) -> Row | str:
        """The row of a record, or why the format leaves it out, as "with a neutral label".

        Raises:
            BadRecordError: It cannot be used.
        """


@dataclass(frozen=True)
class IdRequest:
    """What `IdFormat.build` is asked for.

    paths: the files of the source, or its folder.
    split: name of the judgements, where there are several.
    on_bad_row: "drop" counts lines that hold no ids, and ids that have no text, "error" refuses them.
    on_empty: the same for ids whose text is empty.
    field: configuration key of the source, for messages.
    """

    paths: tuple[str, ...]
    split: str
    on_bad_row: OnBad
    on_empty: OnBad
    field: str


@runtime_checkable
class IdFormat(Format, Protocol):
    """Rows of ids, whose texts are in other files."""

    def files(self, request: IdRequest) -> dict[str, str]:
        """The file of each part.

        Raises:
            ConfigError: One of them is not there.
        """

    def build(
        self, folder: Path, files: Mapping[str, str], request: IdRequest, tally: Tally
    ) -> None:
        """Write texts and rows to a folder, see `id_rows`.

        Raises:
            ConfigError: A file or an id that cannot be used.
        """


def text_of(value: object, what: str) -> str:
    """A text of a record; null is an empty one.

    Raises:
        BadRecordError: It is anything else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRecordError(f"has {shown(value)} as {what}", "give a text")
    return value


def texts_of(value: object, what: str) -> list[str]:
    """A list of texts, of which a single text is one; none for null."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Sequence):
        raise BadRecordError(f"has {shown(value)} as {what}", "give a list of texts")
    return [text_of(item, f"one of {what}") for item in value]


def number_of(value: object, what: str) -> float | None:
    """A number, or None for null."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecordError(f"has {shown(value)} as {what}", "give a number")
    return float(value)


def shown(value: object) -> str:
    """A value as a message shows it."""
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def fields_of(record: object) -> Mapping[str, Any]:
    """A record with names for its values.

    Raises:
        BadRecordError: It is a list or a single value.
    """
    if not isinstance(record, Mapping):
        raise BadRecordError(f"holds {shown(record)}", "give an object ({...}), as the others are")
    return record
