"""Where rows stand in their files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from inbatch.data.sources.columns import Roles
from inbatch.data.sources.dropped import place_in_file
from inbatch.data.sources.files import reread
from inbatch.data.sources.tables import Files, find_schema, place_of, read_tables


def locate_rows(files: Files, roles: Roles, rows: Sequence[int]) -> list[tuple[str, str]]:
    """The files that hold some rows of the whole, and their places there: a line, or a row (from 0).

    Reads file by file, so it is for messages only.

    Args:
        files: All of them.
        roles: Of their columns.
        rows: Rising.
    """
    return reread(files, roles, partial(_locate, roles=roles, rows=rows))


def _locate(files: Files, *, roles: Roles, rows: Sequence[int]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    schema = find_schema(files, roles)
    has_lines, first = files.has_lines, 0  # row of the whole
    for path in files.paths:
        start = first
        if path == files.paths[-1] and not has_lines:
            return found + [(path, place_in_file(row - start)) for row in rows[len(found) :]]
        for table in read_tables(files, path, schema, lines=has_lines):
            for row in rows[len(found) :]:
                if row - first < table.num_rows:
                    found.append((path, place_of(table, row - first, first - start)))
            if len(found) == len(rows):
                return found
            first += table.num_rows
    return found
