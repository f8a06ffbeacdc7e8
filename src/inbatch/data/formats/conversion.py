"""Records -> rows: what a format makes of each, and what becomes of those that cannot be used.

A record with nothing where a query, a positive or a key should be is left out under ``on_empty=drop``, one
that cannot be read or understood under ``on_bad_row=drop``, as with files whose columns are the rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from inbatch.data.formats.base import BadRecordError, RecordFormat, Row, Tally
from inbatch.data.formats.join import join_rows
from inbatch.data.formats.records import Place
from inbatch.data.sources.config_keys import path_key, to_set
from inbatch.data.sources.dropped import EMPTY_BESIDE_OTHERS, NO_ROW, WITHOUT_POSITIVE, Intake
from inbatch.errors import ConfigError

_NO_POSITIVE = "without a positive"
_EMPTY = "with an empty text"


@dataclass
class Conversion:
    """How the records of one source become rows.

    format: of the records.
    key: the field of the records that holds their key, see `columns.find_roles`.
    on_empty: "drop" leaves out empty texts, and records that have no query or positive then.
    on_bad_row: "drop" leaves out records that the format does not allow.
    field: configuration key of the source, for messages.
    labels: whether a record may have a label, for which a streamed source has no column where its first
        records have none.
    """

    format: RecordFormat
    key: str | None = None
    on_empty: Literal["error", "drop"] = "error"
    on_bad_row: Literal["error", "drop"] = "error"
    field: str = "data.train"
    labels: bool = True
    tally: Tally = dataclasses.field(default_factory=Tally)

    def describe(self) -> str:
        """What the rows depend on besides the files."""
        return f"{self.format!r}:{self.key}:{self.on_empty}:{self.on_bad_row}"

    def rows(
        self, records: Iterable[tuple[Place, Any]], *, folder: Path | None = None
    ) -> Iterator[tuple[Row, Any]]:
        """Rows and their keys.

        Args:
            records: with their places.
            folder: where files may be, meanwhile, see `join_rows`.

        Raises:
            ConfigError: A record that cannot be used, with its file and line.
        """
        if not self.format.joined:
            yield from ((row, key) for _, row, key in self._each(records))
            return
        num_used = num_rows = 0
        read = count()
        counted = (record for record, _ in zip(records, read))
        for place, row, key in join_rows(self._each(counted), self.tally, folder=folder):
            if row.positive:
                num_used += len(row.positive) + len(row.negative)
                num_rows += 1
                yield row, key
            else:
                self.tally.add(WITHOUT_POSITIVE, place.__str__, len(row.negative))
        self.tally.intake = Intake(self.format.joined, next(read), num_used, num_rows)

    def _each(self, records: Iterable[tuple[Place, Any]]) -> Iterator[tuple[Place, Row, Any]]:
        for place, record in records:
            try:
                if isinstance(record, BadRecordError):
                    raise record
                row = self.format.row(record)
                if isinstance(row, str):
                    self.tally.add(row, place)
                    continue
                key = _key_of(record, self.key)
                if not all(map(str.strip, (row.query, *row.positive, *row.negative))):
                    row = self._without_empty(row, place)
                if not row.positive and not self.format.joined:
                    raise BadRecordError(
                        "has no positive", "give one", reason=_NO_POSITIVE, empty=True
                    )
            except BadRecordError as error:
                self._refuse(error, place)
                continue
            if row.label is not None and not self.labels:
                problem = "has a label, and the first records of the source have none,"
                fix = f"label all or none, or remove {self.field}.streaming"
                raise self._error(BadRecordError(problem, fix), place)
            yield place, row, key

    def _without_empty(self, row: Row, place: Place) -> Row:
        """The row without its empty texts.

        Raises:
            BadRecordError: The query is empty, or all positives, or all documents; or any text, where empty
                ones are refused.
        """
        parts = {"query": [row.query], "positive": row.positive, "negative": row.negative}
        filled = {role: [text for text in texts if text.strip()] for role, texts in parts.items()}
        role = next(role for role, texts in parts.items() if len(filled[role]) < len(texts))
        none_left = not filled["query"] or not (filled["positive"] or filled["negative"])
        if self.on_empty == "error" or none_left or (row.positive and not filled["positive"]):
            problem = f"has an empty text as its {role}"
            raise BadRecordError(problem, "fill it", reason=_EMPTY, empty=True)
        self.tally.add(EMPTY_BESIDE_OTHERS, place)
        return row._replace(positive=filled["positive"], negative=filled["negative"])

    def _refuse(self, error: BadRecordError, place: Place) -> None:
        """Count a record that cannot be used, or end the run with it."""
        key = "on_empty" if error.empty else "on_bad_row"
        if (self.on_empty if error.empty else self.on_bad_row) == "error":
            fix = f"{error.fix}, or set {to_set(self.field, f'{key}=drop')} to leave it out"
            raise self._error(BadRecordError(error.problem, fix), place)
        if error.reason:
            self.tally.add(error.reason, place)
        else:
            self.tally.add(NO_ROW, lambda: f"{place()}, which {error.problem}")

    def _error(self, error: BadRecordError, place: Place) -> ConfigError:
        path, _, line = place().rpartition(", ")
        problem = f"{error.problem} in {line}"
        return ConfigError(path_key(self.field), problem, error.fix, value=path)


def _key_of(record: Any, name: str | None) -> Any:
    if name is None:
        return None
    key = record.get(name) if isinstance(record, Mapping) else None
    if key is None:
        problem = f"has no key (null) in '{name}'"
        raise BadRecordError(problem, "give one", reason="without a key", empty=True)
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise BadRecordError(f"has no text or whole number as its key '{name}'", "give one")
    return str(key)
