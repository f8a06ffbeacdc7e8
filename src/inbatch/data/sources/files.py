"""Paths -> memory-mapped tables, through `datasets`.

A path, a glob or a list of them becomes a list of files of one kind (`resolve_files`), whose
columns can be looked at without reading them (`peek_columns`) and which load as one Arrow table
(`load_files`) that lies on disk and is shared by all processes of a machine. Remote paths go
through fsspec.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TypeVar

import datasets
import fsspec
import pyarrow as pa

from inbatch.data.sources.arrow_copy import copy_tables
from inbatch.data.sources.columns import Roles, suggest
from inbatch.data.sources.config_keys import path_key, to_set
from inbatch.data.sources.diagnose import (
    FaultyFileError,
    MixedColumnError,
    nearest_name,
    shorten,
)
from inbatch.data.sources.list_texts import refuse_list_texts
from inbatch.data.sources.mixed_columns import Mixed
from inbatch.data.sources.reading import Reading
from inbatch.data.sources.spec import SourceSpec
from inbatch.data.sources.tables import (
    KINDS,
    Files,
    column_names,
    find_fault,
    find_schema,
)
from inbatch.errors import ConfigError

T = TypeVar("T")

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
# Errors of `datasets` for files that do not parse and for hub data sets that cannot be loaded.
_SETTING = re.compile("«(.+?)»")
LOAD_ERRORS = (
    datasets.exceptions.DatasetsError,
    OSError,
    ValueError,
    EOFError,
    zlib.error,
    pa.ArrowInvalid,
)


def resolve_files(
    path: str | Sequence[str],
    *,
    field: str = "data.train",
    reading: Reading | None = None,
    kinds: Mapping[str, str] = KINDS,
) -> Files:
    """Expand paths and globs to the files they name.

    Args:
        path: A path, a glob or a list of them; ``protocol://`` paths go through fsspec.
        field: Configuration key, for messages.
        reading: How they are read.
        kinds: Known kinds by suffix.

    Raises:
        ConfigError: Nothing matches, a suffix is unknown, kinds are mixed or a file comes twice.
    """
    patterns = [path] if isinstance(path, str) else [str(item) for item in path]
    if not patterns:
        raise ConfigError(path_key(field), "names no file", "give a path or a glob", value=[])
    paths = [found for pattern in patterns for found in _expand(pattern, field=field)]
    if twice := [found for found, count in Counter(paths).items() if count > 1]:
        raise ConfigError(
            path_key(field), f"names the file {twice[0]} twice", "name it once", value=path
        )
    suffixes = {_suffix(found, kinds, field=field): found for found in paths}
    if len({kinds[suffix] for suffix in suffixes}) > 1 or {".csv", ".tsv"} <= set(suffixes):
        raise ConfigError(
            path_key(field),
            f"mixes {' and '.join(sorted(suffixes))} files",
            "write one source for each kind",
            value=path,
        )
    return Files(tuple(paths), next(iter(suffixes)), reading or Reading())


def peek_columns(files: Files, *, field: str = "data.train") -> list[str]:
    """Column names of the files, from the schema or the first rows.

    Raises:
        ConfigError: The files cannot be read or hold no row.
    """
    for path in files.paths:
        if _num_bytes(path) == 0:
            raise _no_rows(path, field=field)
    try:
        names = column_names(files)
    except FaultyFileError as fault:
        raise as_error(fault, field=field) from None
    except LOAD_ERRORS as error:
        raise _unreadable(files, error, field=field) from error
    if not names:
        raise _no_rows(files.paths[0], field=field)
    return names


def load_files(
    files: Files,
    roles: Roles,
    *,
    cache_dir: str | None = None,
    workers: int = 1,
    field: str = "data.train",
) -> datasets.Dataset:
    """The used columns of the files as one memory-mapped table.

    Fields of csv and tsv files are read as they stand (``00123`` and ``NA`` stay texts); an empty
    field is null.

    Args:
        files: From `resolve_files`.
        roles: Columns to keep.
        cache_dir: Where the Arrow copy of the files is kept; None for the default of `datasets`.
        workers: Processes that make this copy, at most one for each file.
        field: Configuration key, for messages.

    Raises:
        ConfigError: The files do not parse, or differ in their columns.
    """
    num_proc = min(workers, len(files.paths))

    def copy(files: Files) -> datasets.Dataset:
        try:
            with _quiet():
                return copy_tables(
                    files,
                    find_schema(files, roles),
                    cache_dir=cache_dir,
                    num_proc=num_proc if num_proc > 1 else None,
                )
        except LOAD_ERRORS as error:
            # Of a process the error comes without its cause.
            fault = error.__cause__
            if not isinstance(fault, FaultyFileError):
                fault = find_fault(files, roles)
            if fault is None:
                raise
            raise fault from None

    try:
        table = reread(files, roles, copy)
    except FaultyFileError as fault:
        raise as_error(fault, field=field) from None
    except LOAD_ERRORS as error:
        raise _unreadable(files, error, field=field) from error
    if table.num_rows == 0:
        raise _no_rows(files.paths[0], field=field)
    if files.reading.lists is None:
        origin = ", ".join(files.paths[:3])
        refuse_list_texts(table.data, roles, origin=origin, parsed=True, field=field)
    return table


def load_hub(spec: SourceSpec, *, field: str, cache_dir: str | None) -> datasets.Dataset:
    """One split of a hub data set, memory-mapped.

    Raises:
        ConfigError: It cannot be had.
    """
    where = {"split": spec.split, "revision": spec.revision, "cache_dir": cache_dir}
    try:
        with _quiet():
            return datasets.load_dataset(spec.hub, spec.subset, **where)
    except LOAD_ERRORS as error:
        raise ConfigError(
            f"{field}.hub",
            f"(subset {spec.subset}, split {spec.split}) cannot be loaded ({shorten(error)})",
            "check the name and the connection, or give a path",
            value=spec.hub,
        ) from error


def num_bytes(files: Files) -> int | None:
    """Of all files, as they are stored; None where they are not on this machine, or do not say."""
    if any("://" in path for path in files.paths):
        return None
    sizes = [_num_bytes(path) for path in files.paths]
    return None if None in sizes else sum(size or 0 for size in sizes)


def reread(files: Files, roles: Roles, read: Callable[[Files], T]) -> T:
    """What `read` makes of files, again for each column that turns out to hold texts and lists of them."""
    scores = (name for name in (roles.positive_score, roles.negative_score) if name)
    files = replace(files, mixed=Mixed((*roles.texts[1:], *scores)))
    while True:
        try:
            return read(files)
        except MixedColumnError as error:
            if error.column in files.mixed.do:  # it was read as such
                raise
            mixed = replace(files.mixed, do=(*files.mixed.do, error.column))
            files = replace(files, mixed=mixed)


def as_error(fault: FaultyFileError, *, field: str) -> ConfigError:
    """The error for a file that cannot be read, with its settings as the user types them."""
    problem, fix = fault.fault
    if ".path." in field:  # of a part of a set, which has no settings
        fix = _SETTING.sub("another form, such as .jsonl,", fix)
    fix = _SETTING.sub(lambda match: to_set(field, match[1]), fix)
    return ConfigError(path_key(field), problem, fix, value=fault.path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep `datasets` from logging the errors that it raises."""
    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)


def _expand(pattern: str, *, field: str) -> Iterable[str]:
    pattern = pattern.replace("::file://", "::")  # which `datasets` takes for a relative path
    fs, place = fsspec.core.url_to_fs(pattern)
    if fs.isfile(place):
        # As it was written: a chained path (zip://a.jsonl::b.zip) is more than its first part.
        return [pattern if "://" in pattern else place]
    key = path_key(field)
    if fs.isdir(place):
        raise ConfigError(
            key, "is a folder", f"name its files, for example {pattern}/*.parquet", value=pattern
        )
    found = sorted(match for match in fs.glob(place) if fs.isfile(match))
    if not found:
        raise ConfigError(key, "matches no file", nearest_name(fs, place), value=pattern)
    if "://" not in pattern:
        return found
    _, chained, rest = pattern.partition("::")
    return [fs.unstrip_protocol(match) + chained + rest for match in found]


def _num_bytes(path: str) -> int | None:
    fs, place = fsspec.core.url_to_fs(path)
    size: int | None = fs.size(place)
    return size


def _suffix(path: str, kinds: Mapping[str, str], *, field: str) -> str:
    name = PurePosixPath(path.partition("::")[0].lower())
    compressed = name.suffix in COMPRESSIONS
    suffix = PurePosixPath(name.stem).suffix if compressed else name.suffix
    packed = ("csv", "json", "lines")
    if suffix not in kinds or (compressed and kinds[suffix] not in packed):
        shown = suffix + name.suffix if compressed else suffix
        raise ConfigError(
            path_key(field),
            f"has the unknown suffix '{shown}'",
            suggest(shown, list(kinds)),
            value=path,
        )
    return suffix


def _no_rows(path: str, *, field: str) -> ConfigError:
    return ConfigError(path_key(field), "holds no rows", "remove it, or fill it", value=path)


def _unreadable(files: Files, error: BaseException, *, field: str) -> ConfigError:
    one = len(files.paths) == 1
    shown = files.paths[0] if one else f"one of {len(files.paths)} files"
    fix = (
        "repair the file" if one else "repair it, or give all files of the source the same columns"
    )
    if isinstance(error, ConnectionError):
        fix = "check the connection, or copy the files to this machine"
    kind, reason = files.suffix[1:], shorten(error.__cause__ or error)
    return ConfigError(path_key(field), f"cannot be read as {kind} ({reason})", fix, value=shown)
