"""A source's files -> what its format makes of them: roles of columns, rows on the disk, or rows of ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import fsspec
import xxhash

from inbatch.data.formats.base import ColumnFormat, Head, IdFormat, IdRequest, RecordFormat, Tally
from inbatch.data.formats.choose import PLAIN, Chosen, choose, is_auto
from inbatch.data.formats.columns import Columns
from inbatch.data.formats.conversion import Conversion
from inbatch.data.formats.convert import (
    Converted,
    convert,
    read_left_out,
    refuse_list_records,
    write_once,
)
from inbatch.data.formats.prompts import Prompts, prompts_of_files, prompts_of_table
from inbatch.data.formats.records import (
    HEAD_RECORDS,
    head_of,
    head_of_table,
    read_records,
    table_records,
)
from inbatch.data.sources.columns import Roles, find_roles
from inbatch.data.sources.dropped import Dropped, Intake
from inbatch.data.sources.files import load_hub, peek_columns, resolve_files
from inbatch.data.sources.indexed import IndexedRows
from inbatch.data.sources.mixed_columns import WAS_TEXT
from inbatch.data.sources.spec import SourceSpec
from inbatch.data.sources.tables import Files
from inbatch.errors import ConfigError

NAMED = Chosen(PLAIN, Columns(), "")
MEMORY = "memory"  # the name of the place of rows that are in no file
# Of what is kept on the disk: a format that makes other rows of the same records raises it.
VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Formatted:
    """How a source is read.

    roles: its columns.
    origin: the name of its place.
    prompts: of the source, by role.
    read_as: one line for people; "" for plain columns.
    left_out: records that gave no row.
    intake: what was read, where that is no rows.
    files: the files; None for a hub data set or a folder.
    table: the rows; None where they are the columns of the files, or come file by file.
    conversion: makes the rows of a file, where the files are streamed.
    """

    roles: Roles
    origin: str
    prompts: Mapping[str, str] | None
    read_as: str
    left_out: tuple[Dropped, ...] = ()
    intake: Intake | None = None
    files: Files | None = None
    table: datasets.Dataset | IndexedRows | None = None
    conversion: Conversion | None = None


def read_format(spec: SourceSpec, *, field: str, cache_dir: str | None) -> Formatted:
    """Recognise the format of a source, and make its rows where its columns are not the rows.

    Raises:
        ConfigError: Files, a format, columns or a record that cannot be used.
    """
    if spec.path is None:
        return _of_hub(spec, field=field, cache_dir=cache_dir)
    if (folder := _folder(spec.path)) is not None:
        chosen = choose(spec.format, Head(folder, list, list), field=f"{field}.format")
        if not isinstance(chosen.format, IdFormat):
            resolve_files(spec.path, field=field)  # says that it is a folder
        return _of_ids(spec, chosen, (folder,), field=field, cache_dir=cache_dir)
    files = resolve_files(spec.path, field=field, reading=spec.reading(field=field))
    if _is_named(spec):
        return _of_columns(spec, NAMED, files, field=field, cache_dir=cache_dir)
    head = head_of(files, field=field)
    chosen = choose(spec.format, head, field=f"{field}.format")
    if isinstance(chosen.format, IdFormat):
        return _of_ids(spec, chosen, files.paths, field=field, cache_dir=cache_dir)
    if isinstance(chosen.format, ColumnFormat):
        return _of_columns(spec, chosen, files, field=field, cache_dir=cache_dir)
    conversion = _conversion(spec, chosen, field=field)
    is_table = files.kind != "json"  # whose texts `lists=true` parses
    if files.reading.lists is None or (files.reading.lists and not is_table):
        first = read_records(files, field=field)
        refuse_list_records(first, conversion, origin=files.paths[0], parsed=is_table)
    if spec.streaming:
        return _streamed(spec, chosen, files, conversion)
    parts = [*map(_state, files.paths), repr(files.reading), conversion.describe()]
    converted = convert(
        conversion,
        lambda: read_records(files, field=field),
        folder=_cache(cache_dir),
        fingerprint=_fingerprint(parts),
    )
    return _made(spec, chosen, converted, str(spec.path), field=field)


def read_table(spec: SourceSpec, table: datasets.Dataset, *, field: str) -> Formatted:
    """Rows in memory, which are columns of texts or of lists, whatever else they might be.

    Raises:
        ConfigError: Columns that cannot be used, or rows with different prompts.
    """
    chosen = NAMED
    if not _is_named(spec):
        chosen = choose(spec.format, head_of_table(table, origin=MEMORY), field=f"{field}.format")
        if not isinstance(chosen.format, ColumnFormat):
            chosen = NAMED
    return _made(spec, chosen, Converted(table, (), None), MEMORY, field=field)


def convert_file(files: Files, folder: str, *, conversion: Conversion, roles: Roles) -> Converted:
    """The rows of one file of a streamed source, in a temporary folder."""
    return convert(
        replace(conversion, tally=Tally()),
        lambda: read_records(files, field=conversion.field),
        folder=Path(folder),
        fingerprint="file",
        columns=roles.used,
    )


def _of_hub(spec: SourceSpec, *, field: str, cache_dir: str | None) -> Formatted:
    table = load_hub(spec, field=field, cache_dir=cache_dir)
    origin = f"hub {spec.hub}, split {spec.split}"
    if _is_named(spec):
        return _made(spec, NAMED, Converted(table, (), None), origin, field=field)
    head = head_of_table(table, origin=origin)
    chosen = choose(spec.format, head, field=f"{field}.format")
    if isinstance(chosen.format, IdFormat):
        problem = "reads several files, and a hub data set is one table"
        fix = "give a path, or choose another format"
        raise ConfigError(f"{field}.format", problem, fix, value=chosen.name)
    if isinstance(chosen.format, ColumnFormat):
        return _made(spec, chosen, Converted(table, (), None), origin, field=field)
    conversion = _conversion(spec, chosen, field=field)
    if spec.lists is None:
        records = table_records(table, origin=origin)
        refuse_list_records(records, conversion, origin=origin, parsed=False)
    converted = convert(
        conversion,
        lambda: table_records(table, origin=origin),
        folder=_cache(cache_dir),
        fingerprint=_fingerprint([table._fingerprint, conversion.describe()]),
    )
    return _made(spec, chosen, converted, origin, field=field)


def _of_ids(
    spec: SourceSpec, chosen: Chosen, paths: tuple[str, ...], *, field: str, cache_dir: str | None
) -> Formatted:
    made = chosen.format
    assert isinstance(made, IdFormat)
    if spec.streaming:
        raise _not_streamed(chosen, "looks up texts that may be anywhere", field=field)
    request = IdRequest(paths, spec.split, spec.on_bad_row, spec.empty, field)
    parts = made.files(request)
    states = [f"{part}:{_state(path)}" for part, path in parts.items()]
    fingerprint = _fingerprint([*states, repr(made), spec.on_bad_row, spec.empty])
    tally = Tally()
    write = partial(made.build, files=parts, request=request, tally=tally)
    target = write_once(_cache(cache_dir), fingerprint, write, tally)
    table = IndexedRows(target, fingerprint=fingerprint)
    made_of = Converted(table, *read_left_out(target))
    return _made(spec, chosen, made_of, str(spec.path), field=field)


def _of_columns(
    spec: SourceSpec, chosen: Chosen, files: Files, *, field: str, cache_dir: str | None
) -> Formatted:
    made = chosen.format
    assert isinstance(made, ColumnFormat)
    names = peek_columns(files, field=field)
    place: dict[str, Any] = {"field": field, "cache_dir": cache_dir}
    prompts = prompts_of_files(files, names, made, spec.prompts, streaming=spec.streaming, **place)
    return Formatted(
        roles=prompts.mark(find_roles(names, mapping=spec.columns, field=field)),
        origin=str(spec.path),
        prompts=prompts.by_role,
        read_as=chosen.describe(),
        files=files,
    )


def _made(
    spec: SourceSpec,
    chosen: Chosen,
    converted: Converted,
    origin: str,
    *,
    field: str,
) -> Formatted:
    table = converted.table
    names = [name for name in table.column_names if not name.startswith(WAS_TEXT)]
    roles = find_roles(names, mapping=spec.columns, field=field)
    prompts = Prompts(spec.prompts)
    if isinstance(table, datasets.Dataset) and isinstance(chosen.format, ColumnFormat):
        prompts = prompts_of_table(table, chosen.format, spec.prompts, origin=origin, field=field)
        roles = prompts.mark(roles)
    if isinstance(table, datasets.Dataset):
        marks = [WAS_TEXT + n for n in roles.texts if WAS_TEXT + n in table.column_names]
        table = table.select_columns([*roles.used, *marks])
    return Formatted(
        roles=roles,
        origin=origin,
        prompts=prompts.by_role,
        read_as=chosen.describe(),
        left_out=converted.left_out,
        intake=converted.intake,
        table=table,
    )


def _conversion(spec: SourceSpec, chosen: Chosen, *, field: str) -> Conversion:
    assert isinstance(chosen.format, RecordFormat)
    key = (spec.columns or {}).get("key")
    return Conversion(
        chosen.format,
        key=None if key is None else str(key),
        on_empty=spec.empty,
        on_bad_row=spec.on_bad_row,
        field=field,
    )


def _streamed(spec: SourceSpec, chosen: Chosen, files: Files, conversion: Conversion) -> Formatted:
    """Columns of lists, whatever a file holds, and a label where one of the first records has one."""
    field = conversion.field
    if conversion.format.joined:
        raise _not_streamed(chosen, "joins rows of one query over all files", field=field)
    first = islice(read_records(files, field=field), HEAD_RECORDS)
    rows = replace(conversion, tally=Tally()).rows(first)
    labels = any(row.label is not None for row, _ in rows)
    names = ["query", "positive", "negative", *(["label"] if labels else [])]
    names += [] if conversion.key is None else [conversion.key]
    return Formatted(
        roles=find_roles(names, mapping=spec.columns, field=field),
        origin=str(spec.path),
        prompts=spec.prompts,
        read_as=chosen.describe(),
        files=files,
        conversion=replace(conversion, labels=labels),
    )


def _not_streamed(chosen: Chosen, what: str, *, field: str) -> ConfigError:
    return ConfigError(
        f"{field}.streaming",
        f"reads one file at a time, and the format {chosen.name} {what}",
        "remove it, or prepare the data first",
        value=True,
    )


def _is_named(spec: SourceSpec) -> bool:
    """Whether the user has said which columns are the texts, and nothing of a format."""
    return is_auto(spec.format) and not {"query", "anchor", "positive"}.isdisjoint(
        spec.columns or {}
    )


def _folder(path: object) -> str | None:
    if not isinstance(path, str) or any(mark in path for mark in "*?["):
        return None
    fs, place = fsspec.core.url_to_fs(path)
    return path if fs.isdir(place) else None


def _cache(cache_dir: str | None) -> Path:
    return Path(cache_dir or datasets.config.HF_DATASETS_CACHE / "inbatch")


def _state(path: str) -> str:
    """Changes with the file."""
    fs, place = fsspec.core.url_to_fs(path)
    return f"{path}:{fs.ukey(place)}"


def _fingerprint(parts: list[str]) -> str:
    return xxhash.xxh3_128_hexdigest("\n".join([str(VERSION), *parts]).encode())
