"""The copy that is made of the rows of files: one memory-mapped table, kept for all processes and runs."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import datasets
import pyarrow as pa
from datasets.builder import Key

from inbatch.data.sources.dropped import BAD_ROW
from inbatch.data.sources.tables import Files, read_tables

# Part of the name of a copy: change it with anything that changes what is read from a file.
_VERSION = "rows-1"


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
        schema = pa.schema([*schema, *self.config.files.mixed.marks()])
        return datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(schema))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        paths = list(self.config.files.paths)
        return [datasets.SplitGenerator(name="train", gen_kwargs={"paths": paths})]

    def _generate_tables(self, paths: list[str]) -> Iterator[tuple[Key, pa.Table]]:
        for number, path in enumerate(paths):
            tables = read_tables(self.config.files, path, self.config.schema)
            for place, table in enumerate(tables):
                yield Key(number, place), table


def _as_pattern(path: str) -> str:
    """A name whose characters mean nothing in a glob."""
    return path if "://" in path else glob.escape(path)
