"""Configuration -> sources: files, prepared folders or hub data sets, each as a `Source`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from inbatch.data.formats.conversion import Conversion
from inbatch.data.formats.read import Formatted, convert_file, read_format, read_table
from inbatch.data.sources.checks import Choice
from inbatch.data.sources.choice import check_no_choice
from inbatch.data.sources.columns import Roles, find_roles
from inbatch.data.sources.config_keys import path_key, source_field
from inbatch.data.sources.dropped import Dropped
from inbatch.data.sources.files import load_files, peek_columns
from inbatch.data.sources.list_texts import refuse_list_texts
from inbatch.data.sources.prepared import (
    DOCUMENT_SCORES,
    KEY_HASHES,
    TEXT_HASHES,
    TEXT_LENGTHS,
    expand_prepared,
    open_prepared,
)
from inbatch.data.sources.ragged_arrays import arrays_of
from inbatch.data.sources.scores import check_negatives
from inbatch.data.sources.source import Source
from inbatch.data.sources.spec import SourceSpec, parse_spec
from inbatch.data.sources.streamed import (
    DROPPED_TEXTS,
    LABELS,
    SINGLE_TEXTS,
    DecodedFile,
    StreamedRows,
)
from inbatch.data.sources.tables import Files
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
    choices: dict[str, Any] = {"on_empty": spec.empty, "on_bad_row": spec.on_bad_row}
    options: dict[str, Any] = {"prompts": spec.prompts, "field": field, **choices}
    options["choice"] = spec.choice
    if table is not None:
        if spec.limit is not None:
            table = table.select(range(min(spec.limit, table.num_rows)))
        return load_table(name, table, spec, field=field, cache_dir=cache_dir)
    prepared = open_prepared(spec.path, mapping=spec.columns, raw=spec.raw, field=field, **choices)
    if prepared is not None:
        dataset, roles = prepared.dataset(), prepared.roles
        options |= {"origin": str(spec.path), "prepared": prepared}
        if spec.prompts is None:
            options["prompts"] = prepared.manifest["prompts"]
    else:
        found = read_format(spec, field=field, cache_dir=cache_dir)
        roles, files = found.roles, found.files
        options |= {"origin": found.origin, "prompts": found.prompts}
        options |= {"read_as": found.read_as, "left_out": found.left_out, "intake": found.intake}
        if found.table is None and found.conversion is None:
            assert files is not None
            _check_same_roles(files, roles, spec.columns, field=field)
            options |= {"files": files}
        if spec.streaming:
            streamed = _stream(spec, found, cache_dir=cache_dir, field=field)
            source = Source(name, streamed, roles, cache_dir=cache_dir, **options)
            return _filled(source, spec.columns)
        if found.table is None:
            assert files is not None
            dataset = load_files(files, roles, cache_dir=cache_dir, workers=workers, field=field)
        else:
            dataset = found.table
        if spec.hub is not None and spec.lists is None:
            refuse_list_texts(dataset.data, roles, origin=found.origin, parsed=False, field=field)
    if spec.limit is not None:
        dataset = dataset.select(range(min(spec.limit, dataset.num_rows)))
    return _filled(Source(name, dataset, roles, cache_dir=cache_dir, **options), spec.columns)


def load_table(
    name: str,
    table: datasets.Dataset,
    spec: SourceSpec,
    *,
    field: str,
    cache_dir: str | None = None,
) -> Source:
    """A source of rows in memory.

    Args:
        name: Of the source.
        table: Its rows; columns without a role are left out.
        spec: What is said of them.
        field: Configuration key, for messages.
        cache_dir: See `load_sources`.

    Raises:
        ConfigError: No rows, or columns or rows that cannot be used.
    """
    found = read_table(spec, table, field=field)
    assert found.table is not None
    source = Source(
        name,
        found.table,
        found.roles,
        read_as=found.read_as,
        prompts=found.prompts,
        on_empty=spec.empty,
        on_bad_row=spec.on_bad_row,
        choice=spec.choice,
        cache_dir=cache_dir,
        field=field,
    )
    return _filled(source, spec.columns)


def _check_same_roles(
    files: Files, roles: Roles, mapping: Mapping[str, object] | None, *, field: str
) -> None:
    """Refuse local files whose headers give other columns a role than that of the first one does.

    Raises:
        ConfigError: There is such a file.
    """
    if files.kind == "json":  # which has no header
        return
    for path in (path for path in files.paths[1:] if "://" not in path):
        names = peek_columns(files.only(path), field=field)
        if set(roles.used) <= set(names):
            found = find_roles(names, mapping=mapping, field=field)
            if set(found.used) != set(roles.used):
                raise ConfigError(
                    path_key(field),
                    f"has the columns {', '.join(found.used)}, and {files.paths[0]} has "
                    f"{', '.join(roles.used)}",
                    "give all files of the source the same columns",
                    value=path,
                )


def _filled(source: Source, columns: Mapping[str, object] | None) -> Source:
    """The source, unless no row is left of it, or lists are chosen from that it does not have."""
    if source.num_rows == 0:
        reasons = ", ".join(each.describe() for each in source.dropped)
        dropped = f" but those left out: {reasons}" if reasons else ""
        raise ConfigError(
            path_key(source.field),
            f"holds no rows{dropped}",
            "remove it, or fill it",
            value=source.origin,
        )
    if not source.is_ragged:
        check_no_choice(source.choice, field=source.field)
        if (name := (columns or {}).get("negative_score")) is not None:
            check_negatives(source.roles, str(name), field=source.field)
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
    rule = "" if found.conversion is None else found.conversion.describe()
    return StreamedRows(
        found.files,
        found.roles,
        partial(
            decode_file,
            roles=found.roles,
            conversion=found.conversion,
            on_empty=spec.empty,
            on_bad_row=spec.on_bad_row,
            field=field,
        ),
        folder=Path(cache_dir),
        buffer_files=spec.buffer_files,
        variant=f"{spec.empty}:{found.files.reading}{rule}{':scores' if found.roles.scores else ''}",
        field=field,
    )


def decode_file(
    files: Files,
    folder: str,
    *,
    roles: Roles,
    conversion: Conversion | None,
    on_empty: Choice,
    on_bad_row: Choice,
    field: str,
) -> DecodedFile:
    """The rows of one file and what is known of them."""
    left_out: tuple[Dropped, ...] = ()
    if conversion is None:
        dataset = load_files(files, roles, cache_dir=folder, field=field)
    else:
        dataset, left_out, _ = convert_file(files, folder, conversion=conversion, roles=roles)
    origin = files.paths[0]
    source = Source(
        "file",
        dataset,
        roles,
        files=files if conversion is None else None,
        origin=origin,
        left_out=left_out,
        on_empty=on_empty,
        on_bad_row=on_bad_row,
        field=field,
    )
    arrays: dict[str, np.ndarray | None] = {
        KEY_HASHES: source.keys(),
        LABELS: source.labels(),
        DOCUMENT_SCORES: source.scores(),
    }
    if source.ragged is None:
        arrays |= {TEXT_HASHES: source.text_hashes(), TEXT_LENGTHS: source.text_lengths()}
    else:
        arrays |= arrays_of(source.ragged)
        arrays[DROPPED_TEXTS] = np.array([source.num_dropped_texts])
        arrays[SINGLE_TEXTS] = np.array([source.num_single_texts])
    return DecodedFile(
        source.table(0, source.num_rows),
        {name: array for name, array in arrays.items() if array is not None},
        source.dropped,
    )
