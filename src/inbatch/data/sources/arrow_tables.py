"""A parquet or arrow file -> tables with the columns in use, of plain types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inbatch.data.sources.diagnose import Fault, FaultyFileError
from inbatch.data.sources.dropped import BAD_ROW, mark, place_in_file

_BATCH_ROWS = 1 << 16


def arrow_schema(file: IO[bytes], *, path: str) -> pa.Schema:
    """Names and plain types of a file's columns.

    Raises:
        FaultyFileError: It is no such file.
    """
    schema: pa.Schema = (
        _open(file, path).schema if path_is_arrow(path) else _parquet(file, path).schema_arrow
    )
    return pa.schema([pa.field(f.name, plain_type(f.type)) for f in schema])


def arrow_tables(
    file: IO[bytes], columns: Sequence[str], *, path: str, drop: bool = False
) -> Iterator[pa.Table]:
    """The rows of a file, with these columns.

    Args:
        file: Its bytes, at the beginning.
        columns: Names of columns.
        path: Its name.
        drop: Keep rows with texts that are not UTF-8 as rows without them, whose reason stands in the
            column `BAD_ROW`; else they are refused.

    Raises:
        FaultyFileError: It is no such file, lacks a column, or holds a text that is not UTF-8.
    """
    names = arrow_schema(file, path=path).names
    for name in columns:
        if names.count(name) != 1:
            what = f"has no column '{name}' but {', '.join(names)}"
            if name in names:
                what = f"has the column '{name}' {names.count(name)} times"
            raise FaultyFileError(
                path, Fault(what, "give all files of the source the same columns")
            )
    file.seek(0)
    if path_is_arrow(path):
        batches: Any = _open(file, path)
    else:
        batches = _parquet(file, path).iter_batches(_BATCH_ROWS, columns=list(columns))
    start = 0
    for batch in batches:
        marks: list[str | None] = [None] * batch.num_rows if drop else []
        arrays = []
        for name in columns:
            array, wrong = _plain(batch.column(name))
            arrays.append(array)
            for row in wrong:
                place = place_in_file(start + row)
                if not drop:
                    problem = f"has a text that is not UTF-8 in column '{name}', {place}"
                    raise FaultyFileError(path, Fault(problem, "store texts in UTF-8"))
                marks[row] = mark(f"{PurePosixPath(path).name}, {place}", "that are not UTF-8")
        table = pa.table(arrays, names=list(columns))
        yield table.append_column(BAD_ROW, pa.array(marks, pa.string())) if drop else table
        start += batch.num_rows


def path_is_arrow(path: str) -> bool:
    """Tell an arrow from a parquet file by its name."""
    return path.partition("::")[0].lower().endswith(".arrow")


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type that values are read as: views, bytes and dictionaries of texts as texts."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_binary(kind):
        return pa.large_string()
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind) or pa.types.is_binary(kind):
        return pa.string()
    if (
        pa.types.is_large_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    ):
        return pa.large_list(plain_type(kind.value_type))
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_struct(kind):
        parts = [kind.field(i) for i in range(kind.num_fields)]
        return pa.struct([pa.field(part.name, plain_type(part.type)) for part in parts])
    return kind


def _plain(array: pa.Array) -> tuple[pa.Array, list[int]]:
    """Values of a plain type, with null for those that are no texts in UTF-8, and their rows."""
    kind = plain_type(array.type)
    try:
        plain = array if kind == array.type else pc.cast(array, kind)
        plain.validate(full=True)
    except pa.ArrowInvalid:
        rows = [i for i in range(len(array)) if not _is_valid(array[i : i + 1], kind)]
        wrong = pa.array(np.isin(np.arange(len(array)), rows))
        return pc.cast(pc.if_else(wrong, pa.scalar(None, array.type), array), kind), rows
    return plain, []


def _is_valid(one: pa.Array, kind: pa.DataType) -> bool:
    try:
        # Copied, since a slice is checked with what is around it.
        pc.cast(one.take(pa.array([0])), kind).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _parquet(file: IO[bytes], path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        file.seek(0)
        if file.read(4) == b"PAR1":
            raise FaultyFileError(
                path, Fault(f"is a damaged parquet file ({error})", "copy it again")
            ) from error
        fault = Fault("is not a parquet file, despite its name", "give it the suffix of what it is")
        raise FaultyFileError(path, fault) from error


def _open(file: IO[bytes], path: str) -> Any:
    """The batches of an arrow file, which is a stream or has an index."""
    try:
        return pa.ipc.open_stream(file)
    except pa.ArrowInvalid:
        file.seek(0)
    try:
        whole = pa.ipc.open_file(file)
        return pa.RecordBatchReader.from_batches(
            whole.schema, (whole.get_batch(i) for i in range(whole.num_record_batches))
        )
    except pa.ArrowInvalid as error:
        raise FaultyFileError(
            path, Fault(f"is not an arrow file ({error})", "write it again")
        ) from error
