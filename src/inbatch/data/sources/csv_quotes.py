"""Whether the quotes of a csv file agree with each other, from all of its blocks.

Two kinds of files can be read in two ways by good right, and one of them trains on wrong texts without an
error: files in which quotes are plain characters, one pair of which happens to enclose the ends of some
lines, and files with quoted fields in which a quote was lost. Both are refused, unless the user has named
the quote.
"""

from __future__ import annotations

from typing import final

import numpy as np

from inbatch.data.sources.csv_faults import mixed_fault, two_ways_fault
from inbatch.data.sources.csv_scan import Scan
from inbatch.data.sources.diagnose import Fault
from inbatch.data.sources.reading import CsvRules


@final
class QuoteWatch:
    """Looks at the blocks of a file, one after another.

    Args:
        rules: Of the file.
        num_fields: Of its header.
    """

    def __init__(self, rules: CsvRules, *, num_fields: int) -> None:
        self._asks = rules.quote is not None and not rules.stated
        self._num_fields = num_fields
        self._plain_too = (
            True  # each line has as many fields as the header if quotes are plain characters
        )
        self._spread: tuple[int, int] | None = None  # lines of the first record over several
        self._plain_line = self._quoted_line = (
            0  # first lines with a plain quote, with a quoted field
        )

    def watch(self, found: Scan, stop: int, *, line: int) -> Fault | None:
        """Look at a block.

        Args:
            found: Its structure.
            stop: Bytes of its complete records.
            line: Number of its first line.
        """
        if not self._asks:
            return None
        if found.plain >= 0 and not self._plain_line:
            self._plain_line = line + found.line_of(found.plain)
        if len(found.marks) and not self._quoted_line:
            self._quoted_line = line + found.line_of(int(found.marks[0]))
        if self._plain_line and self._quoted_line:
            return mixed_fault(self._plain_line, self._quoted_line)
        if len(found.marks) == 0:
            return None
        ends = found.lines[: np.searchsorted(found.lines, stop)] + 1
        ends = ends if len(ends) and ends[-1] == stop else np.append(ends, stop)
        fields = np.diff(np.searchsorted(found.delimiters, ends), prepend=0) + 1
        # Lines of records that are left out, empty ones too, say nothing.
        right_R = found.fields_R == self._num_fields
        counted = right_R[np.searchsorted(found.ends_R, ends)]
        self._plain_too &= bool((fields[counted] == self._num_fields).all())
        inside = np.flatnonzero(found.inside(ends[:-1] - 1))
        if self._spread is None and len(inside):
            record = int(np.searchsorted(found.ends_R, ends[inside[0]]))
            first = int(found.ends_R[record - 1]) if record else 0
            last = int(found.ends_R[record]) - 1
            self._spread = line + found.line_of(first), line + found.line_of(last)
        return None

    def judge(self) -> Fault | None:
        """What is wrong with the file, at its end."""
        if self._spread is None or not self._plain_too:
            return None
        return two_ways_fault(*self._spread)
