"""The rows of files as Arrow tables, read by the rules of each format, and the copy that is made of them.

Every record of a file is a row of its tables. One that cannot be read ends the reading, or with
``on_bad_row="drop"`` is a row without values whose reason stands in the column `BAD_ROW`.
"""

from __future__ import annotations

import glob
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, Any, cast

import datasets
import fsspec
import pyarrow as pa
from datasets.builder import Key

from inbatch.data.sources.arrow_tables import arrow_schema, arrow_tables
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.csv_tables import CsvReader
from inbatch.data.sources.diagnose import Fault, FaultyFileError
from inbatch.data.sources.dropped import BAD_ROW
from inbatch.data.sources.json_tables import JsonReader
from inbatch.data.sources.json_types import close, infer, is_open, name_kind
from inbatch.data.sources.reading import Reading

KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
# Part of the name of a copy: change it with anything that changes what is read from a file.
_VERSION = "rows-1"
_LOOK_ROWS = 1000  # of a JSON file, whose values decide on the type of a column


@dataclass(frozen=True, slots=True)
class Files:
    """Files of one kind, in reading order."""

    paths: tuple[str, ...]
    suffix: str  # a key of KINDS
    reading: Reading = Reading()

    @property
    def kind(self) -> str:
        """csv, json, parquet or arrow."""
        return KINDS[self.suffix]

    def only(self, path: str) -> Files:
        """One of them."""
        return replace(self, paths=(path,))


def column_names(files: Files) -> list[str]:
    """Names of the columns of the first file.

    Raises:
        FaultyFileError: It cannot be read.
    """
    path = files.paths[0]
    with _opened(path) as file:
        if files.kind == "csv":
            return _csv_reader(files, path, file).names
        if files.kind == "json":
            return _json_reader(files, path, file).names()
        return arrow_schema(file, path=path).names


def find_schema(files: Files, roles: Roles) -> pa.Schema:
    """Names and types of the columns in use.

    Fields of csv files are texts. A column of JSON values has the type of the first of them (see
    `json_types.infer`), and a label that is a whole number may be any number elsewhere.

    Raises:
        FaultyFileError: A file that was looked at cannot be read, or lacks a column.
    """
    used = list(roles.used)
    if files.kind == "csv":
        return pa.schema([(name, pa.string()) for name in used])
    kinds: dict[str, pa.DataType] = {}
    for path in files.paths:
        with _opened(path) as file:
            if files.kind == "json":
                _infer_more(kinds, _json_reader(files, path, file), used)
            else:
                schema = arrow_schema(file, path=path)
                found = {name: schema.field(name).type for name in used if name in schema.names}
                kinds |= {
                    n: kind for n, kind in found.items() if n not in kinds or is_open(kinds[n])
                }
        if kinds.keys() == set(used) and not any(map(is_open, kinds.values())):
            break
    if roles.label is not None and files.kind == "json" and kinds.get(roles.label) == pa.int64():
        kinds[roles.label] = pa.float64()
    return pa.schema([(name, close(kinds.get(name, pa.null()))) for name in used])


def read_tables(files: Files, path: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of one of some files, with the columns of a schema, and `BAD_ROW` where rows may be dropped.

    Raises:
        FaultyFileError: What is wrong with the file.
    """
    drop = files.reading.on_bad_row == "drop"
    with _opened(path) as file:
        if files.kind == "csv":
            yield from _csv_reader(files, path, file).tables(schema.names)
        elif files.kind == "json":
            yield from _json_reader(files, path, file).tables(schema)
        else:
            for table in arrow_tables(file, schema.names, path=path, drop=drop):
                yield _conform(table, schema, path)


def stream_rows(files: Files) -> Iterator[dict[str, Any]]:
    """The rows of files one by one, as Python values of all columns.

    Raises:
        FaultyFileError: What is wrong with a file.
    """
    for path in files.paths:
        with _opened(path) as file:
            if files.kind == "json":
                yield from _json_reader(files, path, file).values()
                continue
            if files.kind == "csv":
                reader = _csv_reader(files, path, file)
                tables = reader.tables(list(dict.fromkeys(reader.names)))
            else:
                names = arrow_schema(file, path=path).names
                file.seek(0)
                tables = arrow_tables(file, names, path=path)
            for table in tables:
                yield from table.to_pylist()


def find_fault(files: Files, roles: Roles) -> FaultyFileError | None:
    """What is wrong with the first file that has a fault; None where all can be read."""
    for path in files.paths:
        try:
            schema = find_schema(files.only(path), roles)
            for table in read_tables(files, path, schema):
                table.validate(full=True)
        except FaultyFileError as fault:
            return fault
        except pa.ArrowInvalid as error:
            return FaultyFileError(path, Fault(f"is damaged ({error})", "write it again"))
    return None


def copy_tables(
    files: Files, schema: pa.Schema, *, cache_dir: str | None, num_proc: int | None
) -> datasets.Dataset:
    """The rows of files as one memory-mapped table, whose copy is made once.

    Args:
        files: From `resolve_files`.
        schema: Of the columns in use.
        cache_dir: Where the copy is kept; None for the default of `datasets`.
        num_proc: Processes that make it.
    """
    # `datasets` takes the names for patterns, and reads no file itself.
    patterns = [_as_pattern(path) for path in files.paths]
    builder = _Copy(
        cache_dir=cache_dir,
        hash=_VERSION,
        data_files={"train": patterns},
        files=files,
        schema=schema,
    )
    builder.download_and_prepare(num_proc=num_proc)
    if builder.info.splits["train"].num_examples == 0:
        return datasets.Dataset(datasets.table.InMemoryTable(schema.empty_table()))
    return cast(datasets.Dataset, builder.as_dataset("train"))


@dataclass
class _CopyConfig(datasets.BuilderConfig):
    files: Files | None = None
    schema: pa.Schema | None = None


class _Copy(datasets.ArrowBasedBuilder):
    """Keeps a copy under a name that changes with the files and the way they are read."""

    BUILDER_CONFIG_CLASS = _CopyConfig

    def _info(self) -> datasets.DatasetInfo:
        schema = self.config.schema
        if self.config.files.reading.on_bad_row == "drop":
            schema = schema.append(pa.field(BAD_ROW, pa.string()))
        return datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(schema))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        paths = list(self.config.files.paths)
        return [datasets.SplitGenerator(name="train", gen_kwargs={"paths": paths})]

    def _generate_tables(self, paths: list[str]) -> Iterator[tuple[Key, pa.Table]]:
        for number, path in enumerate(paths):
            tables = read_tables(self.config.files, path, self.config.schema)
            for place, table in enumerate(tables):
                yield Key(number, place), table


def _infer_more(kinds: dict[str, pa.DataType], reader: JsonReader, used: Sequence[str]) -> None:
    """Add the types of columns that are not known yet, as far as a file tells them."""
    left = [name for name in used if name not in kinds or is_open(kinds[name])]
    values: dict[str, list[Any]] = {name: [] for name in left}
    for number, row in enumerate(reader.values(), 1):
        for name, column in values.items():
            if (value := row.get(name)) is not None:
                column.append(value)
        if number % _LOOK_ROWS == 0:
            kinds |= {name: infer(column) for name, column in values.items()}
            if not any(is_open(kinds[name]) for name in left):
                return
    kinds |= {name: infer(column) for name, column in values.items()}


def _conform(table: pa.Table, schema: pa.Schema, path: str) -> pa.Table:
    """The rows of a file in the types of the source."""
    for i, column in enumerate(schema):
        kind = table.schema.field(i).type
        if kind == column.type:
            continue
        alike = _is_text(kind) and _is_text(column.type)
        if not (alike or is_open(kind) or (_is_number(kind) and _is_number(column.type))):
            raise FaultyFileError(
                path,
                Fault(
                    f"has {kind} in column '{column.name}', where other files hold {name_kind(column.type)} "
                    f"({column.type})",
                    "give all files of the source the same columns",
                ),
            )
        table = table.set_column(i, column, table.column(i).cast(column.type))
    return table


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _csv_reader(files: Files, path: str, file: IO[bytes]) -> CsvReader:
    rules = files.reading.csv
    rules = replace(rules, delimiter=rules.delimiter or _DELIMITERS[files.suffix])
    return CsvReader(file, path=path, rules=rules, drop=files.reading.on_bad_row == "drop")


def _json_reader(files: Files, path: str, file: IO[bytes]) -> JsonReader:
    return JsonReader(file, path=path, drop=files.reading.on_bad_row == "drop")


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    with fsspec.open(path, "rb", compression="infer") as file:
        yield file if hasattr(file, "readline") else io.BufferedReader(file)


def _as_pattern(path: str) -> str:
    """A name whose characters mean nothing in a glob."""
    return path if "://" in path else glob.escape(path)
