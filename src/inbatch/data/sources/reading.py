"""How files are read: the keys `csv`, `lists` and `on_bad_row` of a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inbatch.data.sources.columns import suggest
from inbatch.errors import ConfigError

KEYS = ("quote", "delimiter", "escape")
WORDS = {"none": None, "null": None, "tab": "\t", "\\t": "\t"}


@dataclass(frozen=True, slots=True)
class CsvRules:
    """The marks of a file.

    quote: around fields, doubled inside of one (RFC 4180); None where quotes are plain characters.
    delimiter: between fields; None for that of the suffix. escape: takes the meaning from the mark
    behind it. stated: the user has named the quote, so that a file that can be read in two ways is
    read in this one.
    """

    quote: str | None = '"'
    delimiter: str | None = None
    escape: str | None = None
    stated: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """How the files of a source are read.

    csv: marks of csv and tsv files. on_bad_row: whether a row that cannot be read ends the run or is
    left out. lists: whether texts such as ``['a', 'b']`` are read as lists; None
    refuses them.
    """

    csv: CsvRules = CsvRules()
    on_bad_row: Literal["error", "drop"] = "error"
    lists: bool | None = False


def parse_rules(value: Any, *, field: str) -> CsvRules:
    """The rules of a source.

    Args:
        value: ``{quote, delimiter, escape}``, each a character, ``none`` or null; None for the default.
        field: Configuration key of the source, for messages.

    Raises:
        ConfigError: An unknown key, a value that is not one ASCII character, or one mark for two things.
    """
    if value is None:
        return CsvRules()
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{field}.csv", "is not a mapping", f"set {field}.csv.quote or another key", value=value
        )
    for key in value:
        if key not in KEYS:
            raise ConfigError(f"{field}.csv.{key}", "is not a valid key", suggest(str(key), KEYS))
    marks = {key: _mark(mark, key, field=field) for key, mark in value.items()}
    rules = CsvRules(**marks, stated="quote" in marks)
    used = [mark for mark in (rules.quote, rules.delimiter, rules.escape) if mark is not None]
    if len(set(used)) < len(used):
        raise ConfigError(
            f"{field}.csv", "gives one character two meanings", "give each its own", value=used
        )
    return rules


def _mark(value: Any, key: str, *, field: str) -> str | None:
    mark = WORDS.get(value, value) if isinstance(value, str) else value
    if mark is None and key != "delimiter":
        return None
    if not isinstance(mark, str) or len(mark) != 1 or not mark.isascii() or mark in "\r\n\0":
        raise ConfigError(
            f"{field}.csv.{key}",
            "is not a single ASCII character",
            "set one" if key == "delimiter" else "set one, or null for none",
            value=value,
        )
    return mark
