"""Source -> a folder of shards (prepared.py describes the layout).

A shard is a folder that appears whole, by a rename. So a killed run leaves finished shards, which the
next run keeps, and nothing that could be taken for one. Shards are written by several processes.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable

from inbatch.batch.documents import Documents
from inbatch.data.copies import by_role, role_of_texts
from inbatch.data.sources.columns import Roles
from inbatch.data.sources.prepared import (
    DOCUMENT_SCORES,
    FORMAT,
    KEY_HASHES,
    MANIFEST,
    ROWS,
    TEXT_HASHES,
    TEXT_LENGTHS,
)
from inbatch.data.sources.ragged_arrays import NAMES, arrays_of, join
from inbatch.data.sources.ragged_rows import ListRows
from inbatch.data.sources.source import Source
from inbatch.data.sources.tokens import write_tokens
from inbatch.errors import ConfigError
from inbatch.files import new_folder, replaced_file, write_json

JOB = "job.json"  # what the shards of a folder are made of
_BLOCK_ROWS = 4096  # rows that are tokenized together


class Tokenize(Protocol):
    """Texts and a prompt -> token ids of each text, and the prompt's number of tokens."""

    def __call__(self, texts: Sequence[str], prompt: str = "") -> tuple[list[list[int]], int]:
        """Tokenize."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """The prepared form of one source, to be written.

    folder: of the source. shard_rows: rows of a shard, fewer in the last. tokenize, tokens: the
    tokenizer and its description (`tokens.describe_tokens`); None for no tokens.
    """

    source: Source
    folder: Path
    shard_rows: int
    tokenize: Tokenize | None = None
    tokens: Mapping[str, Any] | None = None

    @property
    def num_shards(self) -> int:
        """Shards of the source."""
        return -(-self.source.num_rows // self.shard_rows)

    def shard(self, number: int) -> Path:
        """Folder of a shard."""
        return self.folder / f"shard-{number:05d}"

    def rows_of(self, number: int) -> tuple[int, int]:
        """First row of a shard, and the first of the next."""
        start = number * self.shard_rows
        return start, min(start + self.shard_rows, self.source.num_rows)

    def describe(self) -> dict[str, Any]:
        """Everything that the shards depend on, ready for JSON."""
        source = self.source
        return {
            "format": FORMAT,
            "source": source.fingerprint,
            "roles": _plain_roles(source.roles),
            "on_empty": source.on_empty,
            "on_bad_row": source.on_bad_row,
            "num_rows": source.num_rows,
            "shard_rows": self.shard_rows,
            "tokens": None if self.tokens is None else dict(self.tokens),
            **({"scores": list(source.roles.scores)} if source.roles.scores else {}),
        }


def open_job(job: ShardJob) -> list[int]:
    """Make or reopen the folder; returns the numbers of the shards that are missing.

    Raises:
        ConfigError: the folder holds shards of something else.
    """
    description, path = job.describe(), job.folder / JOB
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        for part, value in description.items():
            if found.get(part) != value:
                raise ConfigError(
                    "prepare.output",
                    f"was begun with another {part} ({found.get(part)}, now {value})",
                    "choose another folder, or delete this one",
                    value=str(job.folder),
                )
    elif job.folder.exists() and any(job.folder.iterdir()):
        raise ConfigError(
            "prepare.output", "holds other files", "choose another folder", value=str(job.folder)
        )
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, description)
    except OSError as error:
        raise ConfigError(
            "prepare.output",
            f"cannot be written ({error.strerror})",
            "choose another folder",
            value=str(job.folder),
        ) from error
    for left in job.folder.glob(".shard-*"):
        shutil.rmtree(left)
    if (job.folder / MANIFEST).exists():
        return []
    return [number for number in range(job.num_shards) if not job.shard(number).exists()]


def write_shards(job: ShardJob, numbers: Sequence[int], *, workers: int) -> Iterator[int]:
    """Write shards, in this process or in several; gives the rows of each as it is finished."""
    if workers == 1 or len(numbers) < 2:
        for number in numbers:
            yield write_shard(job, number)
        return
    with ProcessPoolExecutor(
        min(workers, len(numbers)),
        # A forked process could inherit a lock that one of the tokenizer's threads holds.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_take_job,
        initargs=(job,),
    ) as pool:
        try:
            for done in as_completed([pool.submit(_write_shard, number) for number in numbers]):
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def write_shard(job: ShardJob, number: int) -> int:
    """Write one shard; returns its rows."""
    start, stop = job.rows_of(number)
    with new_folder(job.shard(number)) as folder:
        _fill_shard(folder, job, start, stop)
    return stop - start


def _fill_shard(folder: Path, job: ShardJob, start: int, stop: int) -> None:
    table = job.source.table(start, stop)
    with (folder / ROWS).open("wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table, max_chunksize=1 << 16)
    hashed = Source(
        job.source.name,
        Dataset(InMemoryTable(table)),
        job.source.roles,
        files=job.source.files,
        origin=job.source.origin,
        field=job.source.field,
    )
    if hashed.ragged is None:
        arrays = {TEXT_HASHES: hashed.text_hashes(), TEXT_LENGTHS: hashed.text_lengths()}
    else:
        arrays = arrays_of(hashed.ragged)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    for name, known in ((KEY_HASHES, hashed.keys()), (DOCUMENT_SCORES, hashed.scores())):
        if known is not None:
            np.save(folder / f"{name}.npy", known)
    if job.tokenize is not None and job.tokens is not None:
        ids = _tokenize(job.tokenize, hashed, job.tokens["prompts"], job.tokens["dtype"])
        write_tokens(folder, ids, dtype=job.tokens["dtype"])


def finish_job(job: ShardJob, *, versions: Mapping[str, str]) -> None:
    """Join the arrays of all shards and write the manifest; a finished folder stays as it is."""
    if (job.folder / MANIFEST).exists():
        return
    shards = [job.shard(number) for number in range(job.num_shards)]
    names = list(NAMES) if job.source.is_ragged else [TEXT_HASHES, TEXT_LENGTHS]
    names += [KEY_HASHES] if job.source.roles.key else []
    names += [DOCUMENT_SCORES] if job.source.roles.scores else []
    for name in names:
        _join([shard / f"{name}.npy" for shard in shards], job.folder / f"{name}.npy")
    prompts = [] if job.tokens is None else job.tokens["prompts"]
    manifest = {
        **job.describe(),
        "name": job.source.name,
        "origin": job.source.origin,
        "prompts": job.source.prompts,
        "dropped": [asdict(each) for each in job.source.dropped],
        "intake": None if job.source.intake.is_rows else asdict(job.source.intake),
        "num_dropped_texts": job.source.num_dropped_texts,
        "num_single_texts": job.source.num_single_texts,
        "prompt_lengths": [job.tokenize([], prompt)[1] for prompt in prompts if job.tokenize],
        "shards": [
            {"name": shard.name, "num_rows": job.rows_of(number)[1] - job.rows_of(number)[0]}
            for number, shard in enumerate(shards)
        ],
        "versions": dict(versions),
    }
    write_json(job.folder / MANIFEST, manifest)
    for name in names:
        for shard in shards:
            (shard / f"{name}.npy").unlink()


def _join(parts: Sequence[Path], target: Path) -> None:
    """Write the array of all shards; its pages, not its bytes, are in memory meanwhile."""
    arrays = [np.load(path, mmap_mode="r") for path in parts]
    with replaced_file(target) as file:

        def mapped(shape: tuple[int, ...], kind: np.dtype[Any]) -> np.ndarray:
            return np.lib.format.open_memmap(file.name, "w+", kind, shape)

        out = join(target.stem, arrays, mapped)
        assert isinstance(out, np.memmap)
        out.flush()


def _tokenize(
    tokenize: Tokenize, source: Source, prompts: Sequence[str], dtype: str
) -> list[list[np.ndarray]]:
    """Ids by column and text; rows with lists have one column, of all texts of a row and then the next."""
    columns: list[list[np.ndarray]] = [[] for _ in prompts[: 1 if source.is_ragged else None]]
    for start in range(0, source.num_rows, _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, source.num_rows))
        if source.ragged is not None:
            columns[0] += _tokenize_lists(tokenize, source.ragged.read(rows), prompts, dtype)
            continue
        for column, texts, prompt in zip(columns, source.read(rows)[0], prompts, strict=True):
            column += [np.asarray(ids, dtype=dtype) for ids in tokenize(texts, prompt)[0]]
    return columns


def _tokenize_lists(
    tokenize: Tokenize, rows: ListRows, prompts: Sequence[str], dtype: str
) -> list[np.ndarray]:
    """Ids of all texts of the first row, then of those of the next."""
    documents = Documents(rows.picks.counts, rows.picks.positives)
    texts, roles_T = [*rows.queries, *rows.documents], role_of_texts(documents)
    ids: list[np.ndarray] = [np.zeros(0)] * len(texts)
    for role, prompt in enumerate(by_role(prompts)):
        places = np.flatnonzero(roles_T == role).tolist()
        found, _ = tokenize([texts[place] for place in places], prompt)
        for place, found_ids in zip(places, found):
            ids[place] = np.asarray(found_ids, dtype=dtype)
    owner_T = np.concatenate([np.arange(len(rows.queries)), documents.owner])
    return [ids[place] for place in np.argsort(owner_T, kind="stable").tolist()]


def _plain_roles(roles: Roles) -> dict[str, Any]:
    """Roles for JSON; those that few rows have are left out elsewhere."""
    rare = {"positive_score", "negative_score", "lists", "prompt"}
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(roles).items()}
    return {key: value for key, value in plain.items() if value or key not in rare}


_jobs: list[ShardJob] = []  # of a worker: the job comes once, with the process


def _take_job(job: ShardJob) -> None:
    _jobs.append(job)


def _write_shard(number: int) -> int:
    return write_shard(_jobs[0], number)
