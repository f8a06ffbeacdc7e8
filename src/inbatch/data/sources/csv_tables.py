"""A csv or tsv file -> tables of texts, with every record of the file as a row.

A block of some 16 MiB is examined (csv_scan.py) and then parsed by Arrow, and the two must agree on the
number of records. Files that two readers would read differently are refused.

Shape letters: R records of a block.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv

from inbatch.data.sources.csv_faults import (
    count_fault,
    endless_fault,
    header_fault,
    quote_fault,
)
from inbatch.data.sources.csv_quotes import QuoteWatch
from inbatch.data.sources.csv_scan import CR, LF, Scan, StrayQuoteError, scan
from inbatch.data.sources.diagnose import UTF_16, Fault, FaultyFileError, find_separator, not_utf8
from inbatch.data.sources.dropped import BAD_ROW, LINE, mark
from inbatch.data.sources.reading import CsvRules

HEAD_BYTES = 1 << 16  # that hold the header
BLOCK_BYTES = 16 << 20
MOST_BYTES = (
    4 * BLOCK_BYTES
)  # of a record: a quote that opens by mistake would swallow the rest of the file
_BOM = b"\xef\xbb\xbf"


@final
class CsvReader:
    """Reads one file, once.

    Args:
        file: Its bytes, at the beginning.
        path: Its name, for messages.
        rules: Marks of the file; its delimiter is not None.
        drop: Keep records with another number of fields than the header as rows without texts, whose
            reason stands in the column `BAD_ROW`; else they are refused.

    Raises:
        FaultyFileError: The header is none, or has a name twice that is asked for.
    """

    def __init__(self, file: IO[bytes], *, path: str, rules: CsvRules, drop: bool = False) -> None:
        self._file, self._path, self._rules, self._drop = file, path, rules, drop
        self._delimiter = rules.delimiter or ","
        self._line = 1  # number of the line that `_rest` begins with
        self._rest = file.read(HEAD_BYTES) + file.readline()
        if self._rest.startswith(_BOM):
            self._rest = self._rest[len(_BOM) :]
        self._check_bytes(self._rest[:4096])
        self._line_end = LF if b"\n" in self._rest or b"\r" not in self._rest else CR
        self.names = self._header()

    def tables(self, columns: Sequence[str], *, lines: bool = False) -> Iterator[pa.Table]:
        """The rows, with these columns, and on request the column `LINE`.

        Raises:
            FaultyFileError: Anything in the file that does not follow its rules.
        """
        for name in columns:
            if (count := self.names.count(name)) != 1:
                raise self._fault(header_fault(name, count, self.names))
        quotes = QuoteWatch(self._rules, num_fields=len(self.names))
        final = False
        while not final:
            more = self._file.read(BLOCK_BYTES) + self._file.readline()
            final = not more
            block = self._rest + more
            found = self._scan(block, final=final)
            stop = int(found.ends_R[-1]) if len(found.ends_R) else 0
            if len(block) - stop > MOST_BYTES:
                line = self._line + found.line_of(int(found.marks[-1]))
                raise self._fault(endless_fault(line, MOST_BYTES))
            self._rest = block[stop:]
            if stop:
                if fault := quotes.watch(found, stop, line=self._line):
                    raise self._fault(fault)
                yield self._table(block[:stop], found, columns, lines=lines)
                self._line += int(np.searchsorted(found.lines, stop))
        if fault := quotes.judge():
            raise self._fault(fault)

    def _table(self, block: bytes, found: Scan, columns: Sequence[str], *, lines: bool) -> pa.Table:
        """The records of a block, with one row for each that is not an empty line."""
        starts_R = np.concatenate([[0], found.ends_R[:-1]])
        wrong = np.flatnonzero(found.fields_R != len(self.names)).tolist()
        empty = _empty_lines(block, starts_R, found.ends_R)
        empty += [i for i in wrong if not block[starts_R[i] : found.ends_R[i]].strip()]
        reasons: dict[int, str] = {}
        for i in sorted({*wrong} - {*empty}):
            line = self._line + found.line_of(int(starts_R[i]))
            fault = count_fault(int(found.fields_R[i]), len(self.names), line, self._delimiter)
            if not self._drop:
                raise self._fault(fault)
            less = found.fields_R[i] < len(self.names)
            reasons[i] = f"with {'fewer' if less else 'more'} fields than the header"
        rows = np.setdiff1d(np.arange(len(starts_R)), empty, assume_unique=True)
        while True:
            good = np.setdiff1d(rows, list(reasons), assume_unique=True)
            try:
                table = self._parse(_pieces(block, starts_R, found.ends_R, good), columns)
                break
            except pa.ArrowInvalid as error:
                bad = [
                    i for i in good.tolist() if not _is_utf8(block[starts_R[i] : found.ends_R[i]])
                ]
                if not bad:
                    raise self._fault(Fault(f"cannot be parsed ({error})", "correct it")) from error
                if not self._drop:
                    line = self._line + found.line_of(int(starts_R[bad[0]]))
                    raise self._fault(
                        not_utf8(line, block[starts_R[bad[0]] : found.ends_R[bad[0]]], sample=block)
                    ) from error
                reasons |= dict.fromkeys(bad, "that are not UTF-8")
        if table.num_rows != len(good):
            raise self._fault(
                Fault(
                    f"has {len(good)} records behind line {self._line - 1}, of which the parser finds "
                    f"{table.num_rows}",
                    "write it again as .jsonl",
                )
            )
        lines_of = self._line + np.searchsorted(found.lines, starts_R[rows])
        if not self._drop:
            return table.append_column(LINE, pa.array(lines_of)) if lines else table
        places = {
            i: f"{self._name}, line {self._line + found.line_of(int(starts_R[i]))}" for i in reasons
        }
        marks = [mark(places[i], reasons[i]) if i in reasons else None for i in rows.tolist()]
        order = np.searchsorted(good, rows).astype(np.float64)
        order[np.isin(rows, list(reasons))] = np.nan
        table = table.take(pa.array(order, from_pandas=True).cast(pa.int64())) if reasons else table
        table = table.append_column(BAD_ROW, pa.array(marks, pa.string()))
        return table.append_column(LINE, pa.array(lines_of)) if lines else table

    def _parse(self, block: bytes, columns: Sequence[str]) -> pa.Table:
        places = [str(self.names.index(name)) for name in columns]
        options = pc_csv.ConvertOptions(
            column_types=dict.fromkeys(places, pa.string()),
            include_columns=places,
            null_values=[""],
            strings_can_be_null=True,
        )
        if not block:
            return pa.table({name: pa.array([], pa.string()) for name in columns})
        table = pc_csv.read_csv(
            pa.BufferReader(block),
            read_options=pc_csv.ReadOptions(
                column_names=[str(i) for i in range(len(self.names))], block_size=len(block) + 1
            ),
            parse_options=pc_csv.ParseOptions(
                delimiter=self._delimiter,
                quote_char=self._rules.quote or False,
                escape_char=self._rules.escape or False,
                newlines_in_values=True,
            ),
            convert_options=options,
        )
        return table.rename_columns(list(columns))

    def _scan(self, block: bytes, *, final: bool) -> Scan:
        self._check_bytes(block)
        try:
            found = scan(
                block,
                self._rules,
                delimiter=self._delimiter,
                line_end=self._line_end,
                final=final,
            )
        except StrayQuoteError as stray:
            ends = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == self._line_end)
            at, opened = (
                self._line + int(np.searchsorted(ends, place))
                for place in (stray.position, stray.opened)
            )
            raise self._fault(quote_fault(at, opened, stray, quote=self._rules.quote)) from None
        self._check_line_ends(block, found)
        return found

    def _check_bytes(self, block: bytes) -> None:
        if (at := block.find(0)) < 0:
            return
        line = self._line + block.count(b"\n", 0, at)
        head = block[:4096]
        if head.startswith(UTF_16) or 8 * head.count(0) > len(head):
            raise self._fault(not_utf8(line, head, sample=head))
        raise self._fault(Fault(f"has a NUL byte in line {line}", "remove it"))

    def _check_line_ends(self, block: bytes, found: Scan) -> None:
        other = b"\r" if self._line_end == LF else b"\n"
        if other not in block:
            return
        data = np.frombuffer(block + b"\n", dtype=np.uint8)
        places = np.flatnonzero(data[:-1] == other[0])
        if self._line_end == LF:
            places = places[data[places + 1] != LF]
        places = places[~found.inside(places)]
        if len(places):
            line = self._line + found.line_of(int(places[0]))
            what = "a carriage return" if self._line_end == LF else "a line feed"
            raise self._fault(
                Fault(
                    f"has {what} alone outside of quotes in line {line}",
                    "use one kind of line ends",
                )
            )

    def _header(self) -> list[str]:
        """Take the first record; a column without a name gets one."""
        taken: list[bytes] = []
        rules, quoted = self._rules, self._rules.quote is not None
        reader = csv.reader(
            _decoded(self._rest, self._line_end, taken),
            delimiter=self._delimiter,
            quotechar=rules.quote,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            escapechar=rules.escape,
            strict=True,
        )
        try:
            names = next((record for record in reader if record), [])
        except UnicodeDecodeError:
            raise self._fault(
                not_utf8(len(taken), taken[-1], sample=self._rest[:BLOCK_BYTES])
            ) from None
        except csv.Error as error:
            raise self._fault(Fault(f"has a broken header ({error})", "correct line 1")) from None
        if fault := find_separator(b"".join(taken).decode("utf-8"), self._delimiter):
            raise self._fault(fault)
        self._rest = self._rest[sum(map(len, taken)) :]
        self._line += len(taken)
        return [name or f"Unnamed: {i}" for i, name in enumerate(names)]

    @property
    def _name(self) -> str:
        return PurePosixPath(self._path).name

    def _fault(self, fault: Fault) -> FaultyFileError:
        return FaultyFileError(self._path, fault)


def _decoded(block: bytes, line_end: int, taken: list[bytes]) -> Iterator[str]:
    """The lines of a block, each of which is added to `taken`."""
    start = 0
    while start < len(block):
        stop = block.find(line_end, start) + 1 or len(block)
        taken.append(block[start:stop])
        yield taken[-1].decode("utf-8")
        start = stop


def _empty_lines(block: bytes, starts_R: np.ndarray, ends_R: np.ndarray) -> list[int]:
    """Records without a character."""
    short = np.flatnonzero(ends_R - starts_R <= 2)
    return [i for i in short.tolist() if not block[starts_R[i] : ends_R[i]].strip(b"\r\n")]


def _pieces(block: bytes, starts_R: np.ndarray, ends_R: np.ndarray, rows: np.ndarray) -> bytes:
    """The bytes of some records."""
    if len(rows) == len(starts_R):
        return block
    return b"".join(block[starts_R[i] : ends_R[i]] for i in rows.tolist())


def _is_utf8(record: bytes) -> bool:
    try:
        record.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
