"""Where the records of a csv file end and how many fields each has, by RFC 4180, at the speed of numpy.

Parsers differ in what they make of a quote in a wrong place, and all of them make something of it.
This one refuses: a quote that opens a field stands at its beginning, the one that closes it at its end,
and those inside are doubled (or escaped, where an escape character is named). A quote inside a field that
does not begin with one is a plain character.

Shape letters: Q quotes, R records.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inbatch.data.sources.reading import CsvRules

LF, CR = 10, 13


@dataclass(frozen=True, slots=True)
class Scan:
    """The structure of a block that begins with a record.

    ends_R: position behind each record that is complete. fields_R: its fields. lines: positions of
    all line ends, in quotes or not. marks: quotes that open or close a field, in turn. plain: position
    of the first quote that is a plain character, or -1.
    """

    ends_R: np.ndarray
    fields_R: np.ndarray
    lines: np.ndarray
    delimiters: np.ndarray  # in quotes or not
    marks: np.ndarray
    plain: int

    def line_of(self, position: int) -> int:
        """Number of the line that holds a position, from 0."""
        return int(np.searchsorted(self.lines, position))

    def inside(self, positions: np.ndarray) -> np.ndarray:
        """Tell of each position whether it is in quotes."""
        return np.searchsorted(self.marks, positions) % 2 == 1


class StrayQuoteError(Exception):
    """A quote that closes a field in the middle, or that none closes.

    position: of the quote. opened: of the one that opens its field. escaped: a backslash precedes it.
    """

    def __init__(self, position: int, opened: int, *, escaped: bool) -> None:
        super().__init__(position, opened)
        self.position, self.opened, self.escaped = position, opened, escaped


def scan(block: bytes, rules: CsvRules, *, delimiter: str, line_end: int, final: bool) -> Scan:
    """Find the records of a block that begins with one.

    Args:
        block: Bytes; they end with a line, or with the file.
        rules: Quote and escape.
        delimiter: Between fields.
        line_end: `LF` (also behind a `CR`), or `CR` for files that have nothing else.
        final: The file ends here, and so does its last record.

    Raises:
        StrayQuoteError: See there.
    """
    data = np.frombuffer(block, dtype=np.uint8)
    delimiters = np.flatnonzero(data == ord(delimiter))
    lines = np.flatnonzero(data == line_end)
    quotes = np.zeros(0, dtype=np.int64)
    if rules.quote is not None and rules.quote.encode() in block:
        quotes = np.flatnonzero(data == ord(rules.quote))
    ends, breaks = lines, delimiters
    if rules.escape is not None and rules.escape.encode() in block:
        free = ~_escaped(data, ord(rules.escape))
        quotes, ends, breaks = quotes[free[quotes]], ends[free[ends]], breaks[free[breaks]]
    marks, plain = _marks(data, quotes, ends, breaks)
    if len(marks):
        ends = ends[np.searchsorted(marks, ends) % 2 == 0]
        breaks = breaks[np.searchsorted(marks, breaks) % 2 == 0]
    ends_R = ends + 1
    if final and len(marks) % 2:
        raise StrayQuoteError(int(marks[-1]), int(marks[-1]), escaped=False)
    if final and len(data) and (len(ends_R) == 0 or ends_R[-1] < len(data)):
        ends_R = np.append(ends_R, len(data))
    fields_R = np.diff(np.searchsorted(breaks, ends_R), prepend=0) + 1
    return Scan(ends_R, fields_R, lines, delimiters, marks, plain)


def _escaped(data: np.ndarray, escape: int) -> np.ndarray:
    """Mark bytes that follow an escape character which is not escaped itself: bool [n]."""
    found = np.flatnonzero(data == escape)
    begins = np.append(True, found[1:] != found[:-1] + 1)
    in_run = np.arange(len(found)) - np.maximum.accumulate(
        np.where(begins, np.arange(len(found)), 0)
    )
    escaped = np.zeros(len(data) + 1, dtype=bool)
    escaped[found[in_run % 2 == 0] + 1] = True
    return escaped[:-1]


def _marks(
    data: np.ndarray, quotes_Q: np.ndarray, ends: np.ndarray, breaks: np.ndarray
) -> tuple[np.ndarray, int]:
    """Quotes that open or close a field, in turn, and the first that is a plain character (or -1).

    Where all quotes stand where they belong they simply take turns, doubled ones too (they close and open
    again); only blocks with another quote are walked through one by one.
    """
    if len(quotes_Q) == 0:
        return quotes_Q, -1
    border = np.zeros(len(data) + 2, dtype=bool)  # of position p - 1, so that both ends are borders
    border[[0, -1]] = True
    border[ends + 1] = True
    border[breaks + 1] = True
    border[np.flatnonzero(data == CR) + 1] = True
    opens, closes = quotes_Q[::2], quotes_Q[1::2]
    doubled = closes[: len(opens) - 1] + 1 == opens[1:]
    begins = border[opens]
    begins[1:] |= doubled
    stops = border[closes + 2]
    stops[: len(doubled)] |= doubled
    if begins.all() and stops.all():
        return quotes_Q, -1
    return _walk(data, quotes_Q.tolist(), border)


def _walk(data: np.ndarray, quotes: list[int], border: np.ndarray) -> tuple[np.ndarray, int]:
    marks: list[int] = []
    plain, i = -1, 0
    while i < len(quotes):
        at = quotes[i]
        if len(marks) % 2 == 0:
            if border[at]:
                marks.append(at)
            elif plain < 0:
                plain = at
        elif i + 1 < len(quotes) and quotes[i + 1] == at + 1:
            i += 1  # a doubled one
        elif border[at + 2]:
            marks.append(at)
        else:
            raise StrayQuoteError(at, marks[-1], escaped=bool(data[at - 1] == ord("\\")))
        i += 1
    return np.array(marks, dtype=np.int64), plain
