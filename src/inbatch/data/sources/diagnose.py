"""Finds out why a file cannot be read, where the raw file tells more than the parser's error."""

from __future__ import annotations

import codecs
import glob
import json
import zlib
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import fsspec

SEPARATORS = {",": "','", "\t": "a tab", ";": "';'", "|": "'|'"}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LONG = 200  # characters of a parser's message that are shown


class Fault(NamedTuple):
    """The problem with a file and its fix, as `ConfigError` takes them."""

    problem: str
    fix: str


def find_separator(path: str, own: str) -> Fault | None:
    """The fault of a csv or tsv file whose first line shows another separator than `own`."""
    with _open(path) as file:
        head = file.readline().decode("utf-8", errors="replace")
    counts = {mark: head.count(mark) for mark in SEPARATORS}
    other = max(counts, key=lambda mark: counts[mark])
    if counts[own] or not counts[other]:
        return None
    fix = {",": "rename it to .csv", "\t": "rename it to .tsv"}.get(
        other, "write it again with commas (as .csv) or as .jsonl"
    )
    return Fault(f"has fields that seem to be separated by {SEPARATORS[other]}", fix)


def find_fault(path: str, kind: str) -> Fault | None:
    """The first fault of a file; None where none is found.

    Args:
        path: the file.
        kind: "csv", "json", "parquet" or "arrow", as its name says.
    """
    if kind == "parquet":
        return _parquet_fault(path)
    if kind == "arrow":
        return None
    try:
        lines = _json_fault(path) if kind == "json" else _encoding_fault(path)
        return next(lines, None)
    except (OSError, EOFError, zlib.error) as error:
        return Fault(f"cannot be opened ({shorten(error)})", "repair it")


def nearest_name(fs: Any, place: str) -> str:
    """A hint: the nearest file name, or what the nearest folder holds."""
    folder = PurePosixPath(place).parent
    while not fs.isdir(str(folder)) and folder != folder.parent:
        place, folder = str(folder), folder.parent
    names = sorted(PurePosixPath(entry).name for entry in fs.ls(str(folder), detail=False))
    name = PurePosixPath(place).name
    if not glob.has_magic(name) and (near := _similar(name, names)):
        return f"did you mean {folder / near}?"
    if not names:
        return f"check the path: {folder} is empty"
    return f"choose one of {', '.join(names[:8])} in {folder}"


def _similar(name: str, names: Sequence[str]) -> str | None:
    """The nearest of some file names; an equal suffix does not make two names similar."""
    stems = {known: known.partition(".")[0] for known in names}
    stem = name.partition(".")[0]
    near = get_close_matches(name, names, n=4, cutoff=0.75)
    alike = [known for known in near if get_close_matches(stem, [stems[known]], cutoff=0.7)]
    return alike[0] if alike else None


def shorten(error: BaseException) -> str:
    """An error's message on one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _open(path: str) -> Any:
    return fsspec.open(path, "rb", compression="infer")


def _parquet_fault(path: str) -> Fault | None:
    with _open(path) as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return None
    return Fault("is not a parquet file, despite its name", "give it the suffix of what it is")


def _encoding_fault(path: str) -> Iterator[Fault]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                yield _not_utf8(number, line)


def _json_fault(path: str) -> Iterator[Fault]:
    """Faults of a file with one object a line; a file with one list of objects is not checked."""
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.lstrip()[:1] == b"[":
                return
            try:
                if (text := line.strip()) and not isinstance(json.loads(text), dict):
                    yield Fault(f"has no object ({{...}}) in line {number}", "correct that line")
            except UnicodeDecodeError:
                yield _not_utf8(number, line)
            except json.JSONDecodeError as error:
                yield Fault(
                    f"has a broken line {number} ({error.msg}, column {error.colno})", "correct it"
                )


def _not_utf8(number: int, line: bytes) -> Fault:
    encoding = "utf-16" if line.startswith(UTF_16) else "latin1"
    return Fault(
        f"is not UTF-8 (line {number})",
        f"convert it, for example with iconv -f {encoding} -t utf-8 FILE > NEW",
    )
