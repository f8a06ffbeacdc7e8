"""The embeddings of a folder as one file in place of the parts. Shape letters: N texts, W values of a row.

::

    FOLDER/embeddings.npy       [N, W], and ids.npy [N] where the texts have ids
    FOLDER/embeddings.parquet   columns id (the number of the text where it has none) and embedding

The manifest then names the file. One part is in memory at a time, and a run that is killed meanwhile does it
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from inbatch.corpus.store import (
    IDS,
    Manifest,
    StoredEmbeddings,
    damaged,
    ids_path,
    open_embeddings,
    part_path,
)
from inbatch.errors import ConfigError
from inbatch.files import remove, replaced_file

FILES = {"store": "", "npy": "embeddings.npy", "parquet": "embeddings.parquet"}  # by format


def check_format(folder: Path, manifest: Manifest, format: str) -> None:
    """Refuse a folder whose parts have become another file.

    Raises:
        ConfigError: they have.
    """
    if manifest.file and manifest.file != FILES[format]:
        held = next(name for name, file in FILES.items() if file == manifest.file)
        fix = f"set format={held}, or name another folder"
        raise ConfigError(str(folder), f"holds the embeddings as {manifest.file}", fix)


def write_as(format: str, folder: Path, manifest: Manifest) -> Path:
    """Turn the parts of a complete folder into the file of a format; returns the file, or the folder.

    Raises:
        ConfigError: a file in it is damaged, whenever it was written.
    """
    file = FILES[format]
    if not file:
        open_embeddings(folder)
        return folder
    if not manifest.file:
        stored = open_embeddings(folder)
        if format == "npy":
            _write_npy(stored, folder)
        else:
            _write_parquet(stored, folder)
        replace(manifest, file=file).write(folder)
    for shard in range(manifest.num_shards):
        remove(part_path(folder, shard))
        remove(ids_path(folder, shard))
    if format == "npy":
        open_embeddings(folder)
    else:
        _check_parquet(folder / file, manifest.num_texts)
    return folder / file


def _check_parquet(path: Path, num_texts: int) -> None:
    try:
        rows = pq.read_metadata(path).num_rows
    except (OSError, ValueError):  # ArrowInvalid is a ValueError
        rows = -1
    if rows != num_texts:
        raise damaged(path)


def _parts(stored: StoredEmbeddings) -> Iterator[tuple[int, int]]:
    return map(stored.manifest.bounds, range(stored.manifest.num_shards))


def _write_npy(stored: StoredEmbeddings, folder: Path) -> None:
    form = stored.manifest.form
    if stored.manifest.has_ids:
        longest = max(len(name) for part in _parts(stored) for name in stored.ids(*part))
        kind = np.dtype(f"U{max(longest, 1)}")
        with replaced_file(folder / IDS) as file:
            _write_header(file, kind, (len(stored),))
            for part in _parts(stored):
                file.write(np.array(stored.ids(*part), dtype=kind).tobytes())
    with replaced_file(folder / FILES["npy"]) as file:
        _write_header(file, form.numpy_dtype, (len(stored), form.width))
        for part in _parts(stored):
            file.write(stored.rows(*part).tobytes())


def _write_header(file: IO[bytes], kind: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)


def _write_parquet(stored: StoredEmbeddings, folder: Path) -> None:
    form, has_ids = stored.manifest.form, stored.manifest.has_ids
    values = pa.from_numpy_dtype(form.numpy_dtype)
    schema = pa.schema(
        [
            ("id", pa.string() if has_ids else pa.int64()),
            ("embedding", pa.list_(values, form.width)),
        ]
    )
    with (
        replaced_file(folder / FILES["parquet"]) as file,
        pq.ParquetWriter(file, schema) as writer,
    ):
        for start, stop in _parts(stored):
            names = stored.ids(start, stop) if has_ids else np.arange(start, stop)
            flat = pa.array(stored.rows(start, stop).reshape(-1), values)
            rows = pa.FixedSizeListArray.from_arrays(flat, form.width)
            writer.write_table(
                pa.table([pa.array(names, schema.field(0).type), rows], schema=schema)
            )
