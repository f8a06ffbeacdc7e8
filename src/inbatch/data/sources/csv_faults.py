"""Faults of csv and tsv files in words."""

from __future__ import annotations

from collections.abc import Sequence

from inbatch.data.sources.csv_scan import StrayQuoteError
from inbatch.data.sources.diagnose import Fault

_NAMES = {",": "a comma", "\t": "a tab", ";": "a semicolon"}


def quote_fault(line: int, opened: int, stray: StrayQuoteError, *, quote: str | None) -> Fault:
    """The fault of a quote in line `line` of a file, in a field that began in line `opened`."""
    if stray.position == stray.opened:
        problem = (
            f"has a quote ({quote}) at the beginning of a field in line {line} that none closes"
        )
    else:
        began = "" if opened == line else f", which began in line {opened}"
        problem = f"has a quote ({quote}) in line {line} that ends its field before its end{began}"
    fix = "double the quotes inside of quoted fields, or set «csv.quote=null» if quotes are plain text"
    if stray.escaped:
        fix = "set «csv.escape='\\'» if backslashes escape quotes, or double the quotes"
    return Fault(problem, fix)


def header_fault(name: str, count: int, names: Sequence[str]) -> Fault:
    """A column that is asked for and is not there once."""
    if count:
        return Fault(
            f"has the column '{name}' {count} times in its header", "name each column once"
        )
    return Fault(
        f"has no column '{name}' but {', '.join(names)}",
        "give all files of the source the same columns",
    )


def count_fault(found: int, wanted: int, line: int, delimiter: str) -> Fault:
    """A record with another number of fields than the header."""
    problem = f"has {found} fields in line {line}, but {wanted} in its header"
    if found < wanted:
        return Fault(problem, "correct it, or leave such rows out with «on_bad_row=drop»")
    mark = _NAMES.get(delimiter, f"'{delimiter}'")
    return Fault(
        problem,
        f"put quotes around fields that hold {mark}, or leave such rows out with «on_bad_row=drop»",
    )


def endless_fault(line: int, most_bytes: int) -> Fault:
    """A quoted field that goes on and on from line `line`."""
    return Fault(
        f"has a quoted field that begins in line {line} and holds more than {most_bytes >> 20} MiB",
        "close it, or set «csv.quote=null» if quotes are plain text",
    )


def two_ways_fault(first: int, last: int) -> Fault:
    """Lines that are one record, or several if their quotes are plain characters."""
    return Fault(
        f"has one quoted field in lines {first} to {last}, and as many fields in each of its lines if "
        "quotes are plain text",
        "say which it is: «csv.quote='\"'» or «csv.quote=null»",
    )


def mixed_fault(plain: int, quoted: int) -> Fault:
    """A quote that is a plain character, in a file with quoted fields."""
    return Fault(
        f"has a quote inside of an unquoted field in line {plain}, although fields are quoted (line "
        f"{quoted})",
        "quote that field too, with its quotes doubled, or set «csv.quote=null» if all quotes are plain text",
    )
