"""Columns that hold texts in some rows and lists of texts in others: a text is read as a list of one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inbatch.data.sources.diagnose import Fault, FaultyFileError, MixedColumnError
from inbatch.data.sources.json_types import fits, is_list, is_open, name_kind

# Before the name of a column, that of another one, which marks the rows whose text was made a list.
WAS_TEXT = "__was_text__:"


@dataclass(frozen=True, slots=True)
class Mixed:
    """Columns of a source by what they may hold.

    may: those that may hold either, of documents and their scores. do: those that were found to.
    """

    may: tuple[str, ...] = ()
    do: tuple[str, ...] = ()

    def marks(self) -> list[pa.Field]:
        """The columns that mark texts."""
        return [pa.field(WAS_TEXT + name, pa.bool_()) for name in self.do]

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """A schema with lists in these columns."""
        return pa.schema(
            [
                pa.field(f.name, pa.list_(f.type))
                if f.name in self.do and not is_list(f.type)
                else f
                for f in schema
            ]
        )

    def is_new(self, name: str, value: Any, kind: pa.DataType) -> bool:
        """Tell whether a value that is not of a column's type shows that the column holds either."""
        if name not in self.may or name in self.do or value is None:
            return False
        if pa.types.is_list(kind):
            return not isinstance(value, list) and fits(value, kind.value_type)
        return isinstance(value, list) and all(fits(each, kind) for each in value)


def _as_lists(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Values as lists of one, of a type; null stays null."""
    column = _cast(column, kind.value_type)
    chunks = []
    for chunk in column.chunks:
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(valid)])
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), chunk.drop_null())
        chunks.append(pc.if_else(pa.array(valid), lists, pa.scalar(None, lists.type)))
    return pc.cast(pa.chunked_array(chunks, pa.list_(kind.value_type)), kind)


def conform(table: pa.Table, schema: pa.Schema, path: str, mixed: Mixed) -> pa.Table:
    """The rows of a file in the types of the source.

    Args:
        table: Rows of a file.
        schema: Of the source.
        path: Name of the file.
        mixed: Columns that may hold texts and lists of them.

    Raises:
        FaultyFileError: A column is of another type.
        MixedColumnError: A column holds texts and lists that was not known to.
    """
    marks = {mark.name: np.zeros(table.num_rows, bool) for mark in mixed.marks()}
    for i, column in enumerate(schema):
        kind = table.schema.field(i).type
        if kind == column.type:
            continue
        listed = is_list(kind) and is_list(column.type)
        alike = (is_text(kind) and is_text(column.type)) or (
            listed and _is_alike(kind.value_type, column.type.value_type)
        )
        if column.name in mixed.do and _is_alike(kind, column.type.value_type):
            marks[WAS_TEXT + column.name] = pc.is_valid(table.column(i)).to_numpy()
            table = table.set_column(i, column, _as_lists(table.column(i), column.type))
            continue
        if not (alike or is_open(kind) or (_is_number(kind) and _is_number(column.type))):
            problem = (
                f"has {kind} in column '{column.name}', where other files hold {name_kind(column.type)} "
                f"({column.type})"
            )
            fault = Fault(problem, "give all files of the source the same columns")
            if column.name in mixed.may and _is_alike(_inner(kind), _inner(column.type)):
                raise MixedColumnError(path, fault, column.name)
            raise FaultyFileError(path, fault)
        table = table.set_column(i, column, _cast(table.column(i), column.type))
    for name, was_text in marks.items():
        table = table.append_column(name, pa.array(was_text))
    return table


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Values of a type; whole numbers that a float does not hold are rounded, as labels and scores may be."""
    return pc.cast(column, kind, safe=not pa.types.is_floating(_inner(kind)))


def _inner(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if is_list(kind) else kind


def _is_alike(kind: pa.DataType, other: pa.DataType) -> bool:
    return (is_text(kind) and is_text(other)) or (_is_number(kind) and _is_number(other))


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a file's column, of a plain type, holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def count_texts(table: pa.Table, names: Iterable[str]) -> int:
    """Texts of some columns that were made lists of one."""
    marks = [WAS_TEXT + name for name in names if WAS_TEXT + name in table.column_names]
    return sum(int(pc.sum(table.column(mark)).as_py() or 0) for mark in marks)


def say_texts(count: int) -> str:
    """What became of so many texts."""
    return f"{count:,} {'text' if count == 1 else 'texts'} read as lists of one"
