"""Text files without a header: judgements as trec_eval takes them, passages and queries as MS MARCO has them.

They are known by their first line, and read line by line: a quote is a character like any other. Field counts
that differ are refused with the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import fsspec

from inbatch.data.sources.files import COMPRESSIONS
from inbatch.errors import ConfigError

TREC_SUFFIXES = (".txt", ".trec", ".qrel", ".qrels")  # always judgements of one of these layouts
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_ID = re.compile(r"\S*\d\S*")


class Layout(NamedTuple):
    """Where the columns of a file are: fields of a line, and which of them to take, in order.

    separator: between fields; None for any white space.
    """

    num_fields: int
    taken: tuple[int, ...]
    separator: str | None


TREC = Layout(4, (0, 2, 3), None)  # query, 0, document, grade
THREE_COLUMNS = Layout(3, (0, 1, 2), None)  # query, document, grade
ID_AND_TEXT = Layout(2, (0, 1), "\t")


def suffix_of(path: str) -> str:
    """The suffix of a file, that of a compressed one inside: ``.tsv`` of ``qrels.tsv.gz``."""
    name = PurePosixPath(path)
    return PurePosixPath(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix


def find_layout(first_line: str, part: str) -> Layout | None:
    """The layout that a first line shows; None for a header, or another kind of file.

    Args:
        first_line: of the file.
        part: "corpus", "queries" or "qrels", what the file should hold.
    """
    if part == "qrels":
        fields = first_line.split()
        for layout in (TREC, THREE_COLUMNS):
            if len(fields) == layout.num_fields and _NUMBER.fullmatch(fields[-1]):
                return layout
        return None
    fields = first_line.rstrip("\r\n").split("\t")
    is_row = len(fields) == 2 and _ID.fullmatch(fields[0]) is not None
    return ID_AND_TEXT if is_row else None


def layout_of(path: str, part: str, *, field: str) -> Layout | None:
    """The layout of a file without a header; None for a file that has one, or is of another kind.

    Raises:
        ConfigError: a file of judgements (TREC_SUFFIXES) with other columns, or none at all.
    """
    suffix = suffix_of(path)
    if suffix not in (".tsv", *TREC_SUFFIXES):
        return None
    first = next((line for _, line in _lines(path, field=field)), "")
    layout = find_layout(first, part)
    if layout is None and suffix in TREC_SUFFIXES:
        raise ConfigError(
            field,
            f"begins with {first[:60].rstrip()!r}, which is not a judgement",
            "give lines of query id, 0, document id and grade",
            value=path,
        )
    return layout


def read_layout(paths: Sequence[str], layout: Layout, *, field: str) -> list[list[str]]:
    """The taken columns of files without a header.

    Raises:
        ConfigError: a line with more or fewer fields, or bytes that are not UTF-8.
    """
    columns: list[list[str]] = [[] for _ in layout.taken]
    for path in paths:
        for number, line in _lines(path, field=field):
            fields = line.split(layout.separator)
            if len(fields) != layout.num_fields:
                raise ConfigError(
                    field,
                    f"has {len(fields)} fields in line {number:,}, and {layout.num_fields} before",
                    "correct that line",
                    value=path,
                )
            for column, place in zip(columns, layout.taken):
                column.append(fields[place])
    return columns


def _lines(path: str, *, field: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, without their ends, and their numbers from 1."""
    number = 0
    try:
        with fsspec.open(path, "rt", encoding="utf-8", compression="infer", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise ConfigError(field, "is not there", "correct the path", value=path) from None
    except UnicodeDecodeError:
        raise ConfigError(
            field, f"is not UTF-8 near line {number + 1:,}", "save it as UTF-8", value=path
        ) from None
