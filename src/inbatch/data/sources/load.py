"""Configuration -> sources: files, prepared folders or hub data sets, each as a `Source`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from inbatch.data.formats.convert import Conversion
from inbatch.data.formats.read import Formatted, convert_file, read_format
from inbatch.data.sources.checks import OnEmpty
from inbatch.data.sources.columns import Roles, find_roles
from inbatch.data.sources.config_keys import path_key, source_field
from inbatch.data.sources.dropped import Dropped
from inbatch.data.sources.files import Files, load_files
from inbatch.data.sources.prepared import (
    KEY_HASHES,
    TEXT_HASHES,
    TEXT_LENGTHS,
    expand_prepared,
    open_prepared,
)
from inbatch.data.sources.source import Source
from inbatch.data.sources.spec import SourceSpec, parse_spec
from inbatch.data.sources.streamed import LABELS, DecodedFile, StreamedRows
from inbatch.errors import ConfigError

__all__ = ["Source", "load_sources"]


def load_sources(
    spec: str | Sequence[str] | Mapping[str, Any],
    *,
    field: str = "data.train",
    cache_dir: str | None = None,
    workers: int = 1,
    tables: Mapping[str, datasets.Dataset] | None = None,
) -> list[Source]:
    """Load every source of a configuration entry, in its order.

    Args:
        spec: ``{name: SourceSpec keys}``; a bare path (or list) in place of the keys, or in
            place of the whole, which then is one source named as the last part of `field`.
        field: Configuration key of `spec`, for messages.
        cache_dir: Where Arrow copies of the files and text hashes are kept. None: copies where
            `datasets` keeps them, hashes in memory only.
        workers: Processes that make these copies, where a source has several files.
        tables: Rows in memory by source name, which are used in place of the source's files.

    Raises:
        ConfigError: Anything about keys, files, columns or rows that cannot be used.
    """
    if not isinstance(spec, Mapping):
        spec = {field.rpartition(".")[2]: spec}
    if not spec:
        raise ConfigError(field, "names no source", "give at least one path")
    return [
        _load_source(
            str(name),
            value,
            field=source_field(field, str(name)),
            cache_dir=cache_dir,
            workers=workers,
            table=(tables or {}).get(str(name)),
        )
        for name, value in expand_prepared(spec).items()
    ]


def _load_source(
    name: str,
    value: Any,
    *,
    field: str,
    cache_dir: str | None,
    workers: int,
    table: datasets.Dataset | None,
) -> Source:
    spec = parse_spec(value, field=field)
    options: dict[str, Any] = {"prompts": spec.prompts, "on_empty": spec.on_empty, "field": field}
    if table is not None:
        return load_table(name, table, columns=spec.columns, cache_dir=cache_dir, **options)
    prepared = open_prepared(spec.path, mapping=spec.columns, on_empty=spec.on_empty, field=field)
    if prepared is not None:
        dataset, roles = prepared.dataset(), prepared.roles
        options |= {"origin": str(spec.path), "prepared": prepared}
        if spec.prompts is None:
            options["prompts"] = prepared.manifest["prompts"]
    else:
        found = read_format(spec, field=field, cache_dir=cache_dir)
        roles, files = found.roles, found.files
        options |= {"origin": found.origin, "prompts": found.prompts}
        options |= {"read_as": found.read_as, "left_out": found.left_out}
        if spec.streaming:
            streamed = _stream(spec, found, cache_dir=cache_dir, field=field)
            return _filled(Source(name, streamed, roles, cache_dir=cache_dir, **options))
        if found.table is None:
            assert files is not None
            options |= {"files": files}
            dataset = load_files(files, roles, cache_dir=cache_dir, workers=workers, field=field)
        else:
            dataset = found.table
    if spec.limit is not None:
        dataset = dataset.select(range(min(spec.limit, dataset.num_rows)))
    return _filled(Source(name, dataset, roles, cache_dir=cache_dir, **options))


def load_table(
    name: str,
    table: datasets.Dataset,
    *,
    columns: Mapping[str, object] | None = None,
    field: str,
    **options: Any,
) -> Source:
    """A source of rows in memory.

    Args:
        name: Of the source.
        table: Its rows; columns without a role are left out.
        columns: See `columns.find_roles`.
        field: Configuration key, for messages.
        options: Further arguments of `Source`.

    Raises:
        ConfigError: No rows, or columns or rows that cannot be used.
    """
    roles = find_roles(table.column_names, mapping=columns, field=field)
    rows = table.select_columns(list(roles.used))
    return _filled(Source(name, rows, roles, field=field, **options))


def _filled(source: Source) -> Source:
    """The source, unless no row is left of it."""
    if source.num_rows == 0:
        dropped = f" ({source.num_dropped} were dropped)" if source.num_dropped else ""
        raise ConfigError(
            path_key(source.field),
            f"holds no rows{dropped}",
            "remove it, or fill it",
            value=source.origin,
        )
    return source


def _stream(
    spec: SourceSpec, found: Formatted, *, cache_dir: str | None, field: str
) -> StreamedRows:
    assert found.files is not None
    if cache_dir is None:
        raise ConfigError(
            f"{field}.streaming",
            "needs a folder for an index and for copies of a few files",
            "name one in data.cache_dir",
            value=True,
        )
    decode = partial(
        decode_file,
        roles=found.roles,
        on_empty=spec.on_empty,
        conversion=found.conversion,
        field=field,
    )
    rule = "" if found.conversion is None else found.conversion.describe()
    return StreamedRows(
        found.files,
        found.roles,
        decode,
        folder=Path(cache_dir),
        buffer_files=spec.buffer_files,
        variant=spec.on_empty + rule,
        field=field,
    )


def decode_file(
    files: Files,
    folder: str,
    *,
    roles: Roles,
    on_empty: OnEmpty,
    conversion: Conversion | None,
    field: str,
) -> DecodedFile:
    """The rows of one file and what is known of them."""
    left_out: tuple[Dropped, ...] = ()
    if conversion is None:
        dataset = load_files(files, roles, cache_dir=folder, field=field)
    else:
        dataset, left_out = convert_file(files, folder, conversion=conversion, roles=roles)
    origin = files.paths[0]
    source = Source(
        "file", dataset, roles, files=files, origin=origin, on_empty=on_empty, field=field
    )
    arrays = {
        TEXT_HASHES: source.text_hashes(),
        TEXT_LENGTHS: source.text_lengths(),
        KEY_HASHES: source.keys(),
        LABELS: source.labels(),
    }
    return DecodedFile(
        source.table(0, source.num_rows),
        {name: array for name, array in arrays.items() if array is not None},
        source.num_dropped + sum(each.count for each in left_out),
    )
