"""A guide whose embeddings are looked up. Shape letters: C columns, b rows, N = C * b, Dg dimension.

The step knows texts by their 64-bit hash (`Batch.text_ids`), so with a store it neither runs the
guide nor tokenizes for it. `start` computes the missing embeddings of the first portion of a run, and
`reach` those of the others; the guide is released after the last.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from inbatch.batch.batch import Batch
from inbatch.data.collate import MIXED, widest_source
from inbatch.data.sources.columns import resolve_prompts
from inbatch.data.sources.load import Source
from inbatch.device.memory import unless_out_of_memory
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.files import write_text
from inbatch.guide.base import Process
from inbatch.guide.fill import FillSettings, fill
from inbatch.guide.fingerprint import describe_guide, fingerprint
from inbatch.guide.missing import (
    SourceColumn,
    columns_by_prompt,
    find_missing,
    of_rows,
)
from inbatch.guide.opened import open_tables, take_part
from inbatch.guide.portions import Portion
from inbatch.guide.rounds import Rounds
from inbatch.guide.store import OpenTable, Table, table_folder

Columns = Mapping[str, Sequence[SourceColumn]]  # by prompt


@final
class StoredGuide:
    """Looks up the embeddings of a batch in a store that every run may share.

    Args:
        encoder: the guide; held on the CPU until all portions are embedded, then released.
        sources: whose texts will be asked for.
        store_dir: folder of the store; all ranks must see the same.
        store_dtype: float16, or float32 for twice the size. Rows of float16 are computed in mixed
            bfloat16 precision on a GPU. Cosines of all-MiniLM-L6-v2 were then off by 1e-3 in the
            mean and 4e-3 at most; by 1e-4 at most where float32 was computed and rounded, as on a
            CPU. Rows of float32 are computed in float32 everywhere, and equal the live guide's.
        fill: sizes of the computation.

    Raises:
        ConfigError: a `chunk_tokens` that cannot hold the longest text.
    """

    looks_up = True
    tokenizer = None  # batches need no guide tokens

    def __init__(
        self,
        encoder: Encoder,
        sources: Sequence[Source],
        *,
        store_dir: str | Path,
        store_dtype: str = "float16",
        fill: FillSettings,
    ) -> None:
        self.store_dir = Path(store_dir)
        self.prompts = encoder.role_prompts
        self.dimension = encoder.dimension
        self._encoder: Encoder | None = encoder.eval().requires_grad_(False)
        self._store_dtype = store_dtype
        self._settings = fill
        self._columns = columns_by_prompt(sources, self.prompts)
        self._prompts_of = {s.name: resolve_prompts(self.prompts, s.roles) for s in sources}
        self._prompts_of[MIXED] = self._prompts_of[widest_source(sources).name]  # as collated
        self._left = deque([Portion()])  # portions to be embedded
        self._process: Process | None = None
        self._stored: dict[str, Table] = {}
        self._tables: dict[str, OpenTable] = {}
        if self._settings.chunk_tokens < encoder.tokenizer.max_length:
            raise ConfigError(
                "guide.chunk_tokens",
                f"cannot hold one text of the guide's {encoder.tokenizer.max_length} tokens",
                f"set at least {encoder.tokenizer.max_length}",
                value=self._settings.chunk_tokens,
            )

    def expect(self, portions: Sequence[Portion]) -> None:
        """Say what will be asked for, and when; without it, that is all texts from the start on."""
        self._left = deque(portions)

    def start(self, process: Process) -> None:
        """Embed this rank's part of what the store lacks of the first portion, wait for the others, open it.

        Raises:
            ConfigError: on all ranks, one of them has too little memory for the guide; the store is damaged,
                or does not show what other ranks have written.
        """
        if self._process is None and self._encoder is not None:
            self._process = process
            self._stored = self._make_tables(self._encoder, process)
            self._embed_next(self._encoder, process, lambda: False)

    def has(self, num_batches: int) -> bool:
        """Whether the first batches of the run are embedded."""
        return not self._left or num_batches <= self._left[0].start

    def reach(self, num_batches: int, asked: Callable[[], bool] = lambda: False) -> None:
        """Embed what the first batches of the run need; every rank calls it at the same place.

        Args:
            num_batches: of the run.
            asked: whether this process was asked to stop. All ranks then leave within seconds, and what
                they have embedded is stored.

        Raises:
            ConfigError: as `start` does.
        """
        assert self._process is not None  # it has started
        while self._encoder is not None and not self.has(num_batches):
            if not self._embed_next(self._encoder, self._process, asked):
                return

    def embed(self, batch: Batch, device: torch.device) -> Tensor:
        """Embeddings of all texts in the batch's flat order, in the store's type: [N, Dg].

        Raises:
            ConfigError: a text whose embedding is not in the store.
        """
        keys_N = batch.text_ids.reshape(-1)
        prompts = self._prompts_of[batch.source]
        table = self._tables[prompts[0]]
        # Page-locked memory comes from torch's cache, which keeps it until the copy has ended.
        host_ND = torch.empty(
            (len(keys_N), table.dimension),
            dtype=getattr(torch, table.dtype),
            pin_memory=device.type == "cuda",
        )
        rows_ND = host_ND.numpy()
        if len(set(prompts)) == 1:
            held = table.take(keys_N, rows_ND)
        else:
            parts = zip(prompts, _by_role(batch, len(prompts)))
            held = np.concatenate(
                [take_part(self._tables[p], keys_N, rows_ND, of) for p, of in parts]
            )
        if not held.all():
            raise ConfigError(
                "guide.store_dir",
                f"lacks the embeddings of {int((~held).sum())} texts of source "
                f"{batch.source!r}, so the store or the data has changed since the run began",
                "start the run again, or embed them with `inbatch embed-guide` and the run's settings",
                value=str(self.store_dir),
            )
        return host_ND.to(device, non_blocking=True)

    def _make_tables(self, encoder: Encoder, process: Process) -> dict[str, Table]:
        description = describe_guide(
            encoder,
            store_dtype=self._store_dtype,
            compute_dtype=str(self._compute_dtype(process.device)).removeprefix("torch."),
        )
        folder = self.store_dir / fingerprint(description)
        if not (folder / "guide.json").exists():
            text = json.dumps(description, indent=2, default=str) + "\n"
            write_text(folder / "guide.json", text)
        return {
            prompt: Table(table_folder(folder, prompt), encoder.dimension, self._store_dtype)
            for prompt in self._columns
        }

    def _compute_dtype(self, device: torch.device) -> torch.dtype:
        mixed = device.type == "cuda" and self._store_dtype == "float16"
        return torch.bfloat16 if mixed else torch.float32

    def _embed_next(self, encoder: Encoder, process: Process, asked: Callable[[], bool]) -> bool:
        """Embed the next portion and open it; False where the ranks were asked to stop meanwhile."""
        columns = self._columns_of(self._left[0])
        rounds, start_s = Rounds(process, asked), time.monotonic()
        embedded = unless_out_of_memory(
            lambda: sum(self._fill(encoder, p, columns[p], process, rounds) for p in columns)
        )
        if isinstance(embedded, RuntimeError):
            rounds.give_up()
        encoder.to("cpu")
        if process.device.type == "cuda":
            torch.cuda.empty_cache()
        finished = rounds.finish()
        if rounds.out_of_memory or isinstance(embedded, RuntimeError):
            raise _does_not_fit(process.device)
        if not finished:
            return False
        columns = self._pass_stored(columns, process)
        self._encoder = encoder if self._left else None
        process.barrier()
        if process.rank == 0:  # builds the index, which the others then map
            self._tables = open_tables(self._stored, columns, process)
            self._say(embedded, time.monotonic() - start_s, process)
        process.barrier()
        if process.rank:
            self._tables = open_tables(self._stored, columns, process)
        return True

    def _pass_stored(
        self, columns: Columns, process: Process
    ) -> dict[str, tuple[SourceColumn, ...]]:
        """Go on to the first portion that is not stored; the columns of those passed, from `columns` on."""
        passed = [columns]
        self._left.popleft()
        while self._left:
            columns = self._columns_of(self._left[0])
            if process.most(self._lacks(columns, process)):
                break
            passed.append(columns)
            self._left.popleft()
        return {
            prompt: tuple(chain.from_iterable(columns.get(prompt, ()) for columns in passed))
            for prompt in self._stored
        }

    def _columns_of(self, portion: Portion) -> dict[str, tuple[SourceColumn, ...]]:
        rows = portion.rows
        return self._columns if rows is None else of_rows(self._columns, rows())

    def _lacks(self, columns: Columns, process: Process) -> bool:
        """Whether the store lacks some of this rank's part of a portion."""
        part = {"rank": process.rank, "world_size": process.world_size}
        return any(len(find_missing(columns[p], self._stored[p], **part)) for p in columns)

    def _fill(
        self,
        encoder: Encoder,
        prompt: str,
        columns: Sequence[SourceColumn],
        process: Process,
        rounds: Rounds,
    ) -> int:
        table = self._stored[prompt]
        missing = find_missing(columns, table, rank=process.rank, world_size=process.world_size)
        if rounds.stopped or not len(missing):
            return 0
        return fill(
            encoder.to(process.device),
            missing,
            table,
            prompt=prompt,
            process=process,
            settings=self._settings,
            compute_dtype=self._compute_dtype(process.device),
            go_on=rounds.go_on,
        )

    def _say(self, embedded: int, seconds: float, process: Process) -> None:
        texts = sum(map(len, self._tables.values()))
        rest = ""
        if self._left:
            rest = (
                f", enough for the first {self._left[0].start:,} batches; "
                "the rest follows as training gets there"
            )
        process.say(
            f"guide  {embedded:,} texts embedded{'' if process.world_size == 1 else ' by rank 0'}"
            f" in {timedelta(seconds=round(seconds))}, {texts:,} in {self.store_dir}{rest}"
        )


def _does_not_fit(device: torch.device) -> ConfigError:
    return ConfigError(
        "guide.model",
        f"does not fit in the memory of the {device.type} device beside what else is there, not even with "
        "one text at a time",
        "embed its texts ahead of the run with `inbatch embed-guide`, on a device that nothing else uses",
    )


def _by_role(batch: Batch, num_roles: int) -> Sequence[slice | np.ndarray]:
    """Places of the texts of each role in the flat order: columns, or queries, positives and negatives."""
    if batch.documents is None:
        return [slice(k * batch.num_rows, (k + 1) * batch.num_rows) for k in range(num_roles)]
    of_documents = np.where(batch.documents.is_positive, 1, min(2, num_roles - 1))
    role_T = np.concatenate([np.zeros(batch.num_rows, int), of_documents])
    return [np.flatnonzero(role_T == role) for role in range(num_roles)]
