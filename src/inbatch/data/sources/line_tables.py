"""A text file -> tables of one column, a text in each line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

import pyarrow as pa

from inbatch.data.sources.diagnose import FaultyFileError, not_utf8
from inbatch.data.sources.dropped import BAD_ROW, LINE, mark

TEXT = "text"  # the column
_BLOCK_BYTES = 1 << 24


def line_tables(
    file: IO[bytes], *, path: str, drop: bool = False, lines: bool = False
) -> Iterator[pa.Table]:
    """The lines of a file without their ends; an empty one is an empty text.

    Args:
        file: Its bytes, at the beginning.
        path: Its name.
        drop: Keep lines that are not UTF-8 as rows without a text, whose reason stands in the column
            `BAD_ROW`; else they are refused.
        lines: Add the column `LINE`.

    Raises:
        FaultyFileError: A line is not UTF-8.
    """
    number, rest = 1, file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
    while block := file.read(_BLOCK_BYTES):
        whole, end, rest = (rest + block).rpartition(b"\n")
        if end:
            table = _table(whole.split(b"\n"), number, path, drop, lines)
            yield table
            number += table.num_rows
    if rest:
        yield _table([rest], number, path, drop, lines)


def _table(found: list[bytes], number: int, path: str, drop: bool, lines: bool) -> pa.Table:
    texts: list[str | None] = []
    marks: list[str | None] = [None] * len(found)
    for place, line in enumerate(found):
        try:
            texts.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError:
            if not drop:
                fault = not_utf8(number + place, line, sample=b"\n".join(found))
                raise FaultyFileError(path, fault) from None
            texts.append(None)
            where = f"{PurePosixPath(path).name}, line {number + place}"
            marks[place] = mark(where, "that are not UTF-8")
    table = pa.table({TEXT: pa.array(texts, pa.string())})
    if drop:
        table = table.append_column(BAD_ROW, pa.array(marks, pa.string()))
    if lines:
        table = table.append_column(LINE, pa.array(range(number, number + len(found))))
    return table
