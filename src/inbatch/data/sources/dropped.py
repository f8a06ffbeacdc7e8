"""Rows that are left out: counted by reason, with the first places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# A column beside those of a file: null for a row that was read, else its place and the reason
# against it. So a row that cannot be read stays a row of the table, and is counted there.
BAD_ROW = "__bad_row__"
# A column beside those of a csv or json file, where it is asked for: the line of each row, from 1.
LINE = "__line__"
PLACES = 5  # that are kept for each reason
# What formats leave out of rows, or of which they make none. Where a format reads rows (see `Intake`) these
# reasons count texts, all others rows.
EMPTY_BESIDE_OTHERS = "with empty texts beside others, which are left out"
NO_ROW = "that no row can be made of"
GIVEN_AGAIN = "given a second time"
WITHOUT_POSITIVE = "of queries without a positive"
OF_TEXTS = (EMPTY_BESIDE_OTHERS, GIVEN_AGAIN, WITHOUT_POSITIVE)
ROWS = "rows"
_BETWEEN = "\t"


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows that were left out for one reason, or texts for one of `OF_TEXTS`."""

    reason: str  # after "rows": "with an empty text in column 'query'"
    count: int
    places: tuple[str, ...]  # the first of them: "offers.csv, line 7" or "row 3"

    def describe(self) -> str:
        """One line."""
        more = ", ..." if self.count > len(self.places) else ""
        return f"{self.count:,} {self.reason} ({'; '.join(self.places)}{more})"


@dataclass(frozen=True, slots=True)
class Intake:
    """What was read to make the rows of a source: all of it was used, or left out for a reason.

    unit: what is counted, in the plural: rows, or what a format makes rows of. read, used: number of them.
    num_rows: that were made of those. beside: what else was read, with its unit. kept: rows that the source
    holds, where a limit or a fault has left out others of those that were made; None for all.
    """

    unit: str
    read: int
    used: int
    num_rows: int
    beside: tuple[tuple[str, int], ...] = ()
    kept: int | None = None

    @classmethod
    def of_rows(cls, used: int, dropped: int) -> Intake:
        """Where the rows are what was read."""
        return cls(ROWS, used + dropped, used, used)

    def holding(self, num_rows: int) -> Intake:
        """The same, of a source that holds so many of the rows that were made."""
        return replace(self, kept=num_rows if num_rows < self.num_rows else None)

    @property
    def is_rows(self) -> bool:
        """Whether the rows are what was read."""
        return self.unit == ROWS

    def describe(self) -> str:
        """One line."""
        beside = ", ".join(f"{count:,} {unit}" for unit, count in self.beside)
        rows = "" if self.is_rows else f" in {self.num_rows:,} rows"
        rows += "" if self.kept is None else f" ({self.kept:,} of them kept)"
        out = f", {self.read - self.used:,} left out" if self.read > self.used else ""
        with_them = f" ({beside})" if beside else ""
        return f"{self.read:,} {self.unit} read{with_them}, {self.used:,} used{rows}{out}"


def intake_from_json(value: Mapping[str, Any] | None) -> Intake | None:
    """What `dataclasses.asdict` has made of one."""
    if value is None:
        return None
    beside = tuple((str(unit), int(count)) for unit, count in value["beside"])
    return Intake(**{**value, "beside": beside})


def place_in_file(row: int, line: int | None = None) -> str:
    """The place of a row in its file, by the line where there is one."""
    return f"row {row} (counted from 0)" if line is None else f"line {line}"


def mark(place: str, reason: str) -> str:
    """The text in `BAD_ROW` of a row that cannot be read."""
    return f"{place}{_BETWEEN}{reason}"


def read_mark(text: str) -> tuple[str, str]:
    """The place and the reason of a text in `BAD_ROW`."""
    place, _, reason = text.partition(_BETWEEN)
    return place, reason


def count_marks(marks: Iterable[str]) -> tuple[Dropped, ...]:
    """Rows that cannot be read, by reason."""
    places: dict[str, list[str]] = {}
    for text in marks:
        place, reason = read_mark(text)
        places.setdefault(reason, []).append(place)
    return tuple(
        Dropped(reason, len(found), tuple(found[:PLACES])) for reason, found in places.items()
    )


def num_rows(dropped: Iterable[Dropped]) -> int:
    """Rows that were left out, whatever the reason, without texts of other rows."""
    return sum(each.count for each in dropped if each.reason not in OF_TEXTS)


def merge(parts: Iterable[Sequence[Dropped]]) -> tuple[Dropped, ...]:
    """Counts of several parts of a source, in their order."""
    merged: dict[str, Dropped] = {}
    for part in parts:
        for each in part:
            known = merged.get(each.reason, Dropped(each.reason, 0, ()))
            places = (*known.places, *each.places)[:PLACES]
            merged[each.reason] = Dropped(each.reason, known.count + each.count, places)
    return tuple(merged.values())


def from_json(values: Iterable[Mapping[str, Any]]) -> tuple[Dropped, ...]:
    """What `dataclasses.asdict` has made of some."""
    return tuple(Dropped(v["reason"], v["count"], tuple(v["places"])) for v in values)
