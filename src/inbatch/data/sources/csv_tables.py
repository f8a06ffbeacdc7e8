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

from inbatch.data.sources.csv_scan import CR, LF, Scan, StrayQuoteError, quote_fault, scan
from inbatch.data.sources.diagnose import UTF_16, Fault, FaultyFileError, find_separator, not_utf8
from inbatch.data.sources.dropped import BAD_ROW, mark
from inbatch.data.sources.reading import CsvRules

BLOCK_BYTES = 16 << 20
MOST_BYTES = (
    4 * BLOCK_BYTES
)  # of a record: a quote that opens by mistake would swallow the rest of the file
_BOM = b"\xef\xbb\xbf"
_NAMES = {",": "a comma", "\t": "a tab", ";": "a semicolon"}


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
        self._rest = file.read(BLOCK_BYTES) + file.readline()
        if self._rest.startswith(_BOM):
            self._rest = self._rest[len(_BOM) :]
        # What must hold until the end of the file: whether it could have been written without
        # quoting, and the first lines that speak for and against that.
        self._plain_too = True
        self._spread: tuple[int, int] | None = None  # lines of the first record over several
        self._plain_line = self._quoted_line = 0
        self._check_bytes(self._rest[:4096])
        self._line_end = LF if b"\n" in self._rest or b"\r" not in self._rest else CR
        self.names = self._header()

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows, with these columns.

        Raises:
            FaultyFileError: Anything in the file that does not follow its rules.
        """
        for name in columns:
            if (count := self.names.count(name)) != 1:
                raise self._fault(_header_fault(name, count, self.names))
        final = False
        while not final:
            more = self._file.read(BLOCK_BYTES) + self._file.readline()
            final = not more
            block = self._rest + more
            found = self._scan(block, final=final)
            stop = int(found.ends_R[-1]) if len(found.ends_R) else 0
            if len(block) - stop > MOST_BYTES:
                line = self._line + found.line_of(int(found.marks[-1]))
                raise self._fault(_endless(line))
            self._rest = block[stop:]
            if stop:
                self._watch_quotes(found, stop)
                yield self._table(block[:stop], found, columns)
                self._line += int(np.searchsorted(found.lines, stop))
        if self._spread is not None and self._plain_too:
            raise self._fault(_two_ways(*self._spread))

    def _table(self, block: bytes, found: Scan, columns: Sequence[str]) -> pa.Table:
        """The records of a block, with one row for each that is not an empty line."""
        starts_R = np.concatenate([[0], found.ends_R[:-1]])
        wrong = np.flatnonzero(found.fields_R != len(self.names)).tolist()
        empty = _empty_lines(block, starts_R, found.ends_R)
        empty += [i for i in wrong if not block[starts_R[i] : found.ends_R[i]].strip()]
        reasons: dict[int, str] = {}
        for i in sorted({*wrong} - {*empty}):
            line = self._line + found.line_of(int(starts_R[i]))
            fault = _count_fault(int(found.fields_R[i]), len(self.names), line, self._delimiter)
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
        if not self._drop:
            return table
        places = {
            i: f"{self._name}, line {self._line + found.line_of(int(starts_R[i]))}" for i in reasons
        }
        marks = [mark(places[i], reasons[i]) if i in reasons else None for i in rows.tolist()]
        order = np.searchsorted(good, rows).astype(np.float64)
        order[np.isin(rows, list(reasons))] = np.nan
        table = table.take(pa.array(order, from_pandas=True).cast(pa.int64())) if reasons else table
        return table.append_column(BAD_ROW, pa.array(marks, pa.string()))

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

    def _watch_quotes(self, found: Scan, stop: int) -> None:
        """Find out whether the file can be read without quoting too, and whether its quotes agree."""
        if self._rules.quote is None or self._rules.stated:
            return
        if found.plain >= 0 and not self._plain_line:
            self._plain_line = self._line + found.line_of(found.plain)
        if len(found.marks) and not self._quoted_line:
            self._quoted_line = self._line + found.line_of(int(found.marks[0]))
        if self._plain_line and self._quoted_line:
            raise self._fault(_mixed(self._plain_line, self._quoted_line))
        if len(found.marks) == 0:
            return
        ends = found.lines[: np.searchsorted(found.lines, stop)] + 1
        ends = ends if len(ends) and ends[-1] == stop else np.append(ends, stop)
        fields = np.diff(np.searchsorted(found.delimiters, ends), prepend=0) + 1
        # Lines of records that are left out, empty ones too, say nothing.
        right_R = found.fields_R == len(self.names)
        counted = right_R[np.searchsorted(found.ends_R, ends)]
        self._plain_too &= bool((fields[counted] == len(self.names)).all())
        inside = np.flatnonzero(found.inside(ends[:-1] - 1))
        if self._spread is None and len(inside):
            record = int(np.searchsorted(found.ends_R, ends[inside[0]]))
            first = int(found.ends_R[record - 1]) if record else 0
            last = int(found.ends_R[record]) - 1
            self._spread = self._line + found.line_of(first), self._line + found.line_of(last)

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


def _header_fault(name: str, count: int, names: Sequence[str]) -> Fault:
    if count:
        return Fault(
            f"has the column '{name}' {count} times in its header", "name each column once"
        )
    return Fault(
        f"has no column '{name}' but {', '.join(names)}",
        "give all files of the source the same columns",
    )


def _count_fault(found: int, wanted: int, line: int, delimiter: str) -> Fault:
    problem = f"has {found} fields in line {line}, but {wanted} in its header"
    if found < wanted:
        return Fault(problem, "correct it, or leave such rows out with «on_bad_row=drop»")
    mark = _NAMES.get(delimiter, f"'{delimiter}'")
    return Fault(
        problem,
        f"put quotes around fields that hold {mark}, or leave such rows out with «on_bad_row=drop»",
    )


def _endless(line: int) -> Fault:
    return Fault(
        f"has a quoted field that begins in line {line} and holds more than {MOST_BYTES >> 20} MiB",
        "close it, or set «csv.quote=null» if quotes are plain text",
    )


def _two_ways(first: int, last: int) -> Fault:
    return Fault(
        f"has one quoted field in lines {first} to {last}, and as many fields in each of its lines if "
        "quotes are plain text",
        "say which it is: «csv.quote='\"'» or «csv.quote=null»",
    )


def _mixed(plain: int, quoted: int) -> Fault:
    return Fault(
        f"has a quote inside of an unquoted field in line {plain}, although fields are quoted (line "
        f"{quoted})",
        "quote that field too, with its quotes doubled, or set «csv.quote=null» if all quotes are plain text",
    )
