"""Faults of files in words: what is wrong with one, and how to repair it."""

from __future__ import annotations

import codecs
import glob
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any, NamedTuple

SEPARATORS = {",": "','", "\t": "a tab", ";": "';'", "|": "'|'"}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UNUSED_1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")
_LONG = 200  # characters of a parser's message that are shown


class Fault(NamedTuple):
    """The problem with a file and its fix, as `ConfigError` takes them.

    Settings of the source stand in «» in the fix (``«csv.quote=null»``): a reader does not know its key.
    """

    problem: str
    fix: str


class FaultyFileError(Exception):
    """What a reader found wrong with a file; `path` is its name as the user gave it."""

    def __init__(self, path: str, fault: Fault) -> None:
        super().__init__(path, fault)
        self.path, self.fault = path, fault


class MixedColumnError(FaultyFileError):
    """A column that holds texts in some rows and lists of them in others."""

    def __init__(self, path: str, fault: Fault, column: str) -> None:
        super().__init__(path, fault)
        self.column = column

    def __reduce__(self) -> tuple[Any, ...]:  # from a process that reads
        return MixedColumnError, (self.path, self.fault, self.column)


def find_separator(head: str, own: str) -> Fault | None:
    """The fault of a csv or tsv file whose first line, `head`, shows another delimiter than `own`."""
    counts = {mark: head.count(mark) for mark in SEPARATORS}
    other = max(counts, key=lambda mark: counts[mark])
    if head.count(own) or not counts[other]:
        return None
    fix = {",": "rename it to .csv", "\t": "rename it to .tsv"}.get(
        other, f"set «csv.delimiter='{other}'»"
    )
    return Fault(f"has fields that seem to be separated by {SEPARATORS[other]}", fix)


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


def not_utf8(line: int, text: bytes, *, sample: bytes) -> Fault:
    """The fault of a text file that is not UTF-8.

    Args:
        line: Number of a line that does not decode.
        text: That line.
        sample: Bytes of the file around it, from which the encoding is guessed.
    """
    problem = f"is not UTF-8 (line {line})"
    if _has_utf8(sample):
        return Fault(problem, "correct that line, since others that are not ASCII are UTF-8")
    encoding = _encoding(sample if len(sample) > len(text) else text)
    if encoding is None:
        return Fault(problem, "convert it with iconv -f ENCODING -t utf-8 FILE > NEW")
    return Fault(problem, f"convert it, for example with iconv -f {encoding} -t utf-8 FILE > NEW")


def _encoding(sample: bytes) -> str | None:
    """The likeliest encoding of bytes that are not UTF-8; None where nothing speaks for one."""
    if sample.startswith(UTF_16):
        return "utf-16"
    if (zeros := sample.count(0)) > len(sample) // 8:
        return "utf-16le" if sample[1::2].count(0) * 2 > zeros else "utf-16be"
    runs = re.findall(rb"[\x80-\xff]+", sample)
    high = b"".join(runs)
    if len(high) > 2 * len(runs) or _UNUSED_1252.intersection(high):
        return None  # Western texts have single letters beyond ASCII, others words of them
    # Where Windows-1252 has quotes and dashes, Latin-1 has control characters that no text holds.
    return "WINDOWS-1252" if any(byte < 0xA0 for byte in high) else "latin1"


def _has_utf8(sample: bytes) -> bool:
    """Tell whether other lines hold characters beyond ASCII in UTF-8."""
    for line in sample.split(b"\n"):
        if not line.isascii():
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                continue
            return True
    return False
