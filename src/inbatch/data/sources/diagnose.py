"""Why files cannot be read: what a look at the raw file says better than the error of a parser."""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Iterator
from typing import Any

import fsspec

SEPARATORS = {",": "','", "\t": "a tab", ";": "';'", "|": "'|'"}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LONG = 200  # characters of a parser's message that are shown


def find_separator(path: str, own: str) -> str | None:
    """A clause on the separator, where the first line of a csv or tsv file shows another one."""
    with _open(path) as file:
        head = file.readline().decode("utf-8", errors="replace")
    counts = {mark: head.count(mark) for mark in SEPARATORS}
    other = max(counts, key=lambda mark: counts[mark])
    if counts[own] or not counts[other]:
        return None
    suffix = {",": "rename it to .csv", "\t": "rename it to .tsv"}.get(
        other, "write it again with commas (as .csv) or as .jsonl"
    )
    return f"has fields that seem to be separated by {SEPARATORS[other]}: {suffix}"


def find_fault(path: str, kind: str) -> str | None:
    """A clause on the first fault of a file, with its fix; None where none is found.

    Args:
        path: the file.
        kind: "csv", "json", "parquet" or "arrow", as its name says.
    """
    if kind == "parquet":
        return _find_no_parquet(path)
    if kind == "arrow":
        return None
    try:
        lines = _json_fault(path) if kind == "json" else _encoding_fault(path)
        return next(lines, None)
    except (OSError, EOFError, zlib.error) as error:
        return f"cannot be opened ({shorten(error)}): mend it"


def shorten(error: BaseException) -> str:
    """An error's message on one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _open(path: str) -> Any:
    return fsspec.open(path, "rb", compression="infer")


def _find_no_parquet(path: str) -> str | None:
    with _open(path) as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return None
    return "is no parquet file, whatever its name says: give it the suffix of what it is"


def _encoding_fault(path: str) -> Iterator[str]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                yield _not_utf8(number, line)


def _json_fault(path: str) -> Iterator[str]:
    """Of a file with one object a line; a list of objects has no lines to speak of."""
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.lstrip()[:1] == b"[":
                return
            try:
                if (text := line.strip()) and not isinstance(json.loads(text), dict):
                    yield f"has no object ({{...}}) in line {number}: mend that line"
            except UnicodeDecodeError:
                yield _not_utf8(number, line)
            except json.JSONDecodeError as error:
                yield f"has a broken line {number} ({error.msg}, column {error.colno}): mend it"


def _not_utf8(number: int, line: bytes) -> str:
    encoding = "utf-16" if line.startswith(UTF_16) else "latin1"
    return (
        f"is not UTF-8 (line {number}): convert it, "
        f"for example with iconv -f {encoding} -t utf-8 FILE > NEW"
    )
