"""Embed the texts that a table lacks. Shape letters: n texts of a window, D dimension.

Texts are read in windows. Each is sorted by length and cut into chunks of equal computed tokens, so
that little is spent on padding; the next is read and tokenized by a thread meanwhile. A shard is
written after so many texts or so much time, and a killed run loses what it has not yet written: a
minute, or a twentieth of its time where that is more (which keeps shards few).

A fill that was stopped or killed goes on with the chunks that it would have gone on with, so that a
resumed run meets the same embeddings to the last bit: windows are cut from all texts, those in the
table too, shards hold whole chunks, and the best cuts of what is left of a window are those of the window.

Several runs may fill a table at once. They go through the windows in different random orders and skip
what the others' shards have brought in the meantime; a text that two of them compute at the same time
is stored twice, which does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, TypeVar, final

import numpy as np
import torch
from torch import Tensor

from inbatch.batch.batch import Chunk
from inbatch.batch.chunks import halve_chunks, make_chunks
from inbatch.device.memory import retried
from inbatch.encoder import Encoder
from inbatch.guide.base import Process
from inbatch.guide.missing import Missing
from inbatch.guide.store import Table

T = TypeVar("T")

SAY_S = 10.0  # between two progress lines
WINDOW_TEXTS = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class FillSettings:
    """Sizes and limits for embedding the missing texts.

    chunk_tokens: computed tokens of one forward.
    window_texts: texts that are sorted by length together.
    shard_texts: texts of a shard, at most one chunk more.
    shard_s: seconds after which a smaller one is written.
    """

    chunk_tokens: int
    window_texts: int = WINDOW_TEXTS
    shard_texts: int = 262144
    shard_s: float = 60.0


class TextWindow(NamedTuple):
    """Tokenized texts."""

    keys_n: np.ndarray  # uint64
    chunks: tuple[Chunk, ...]


def fill(
    encoder: Encoder,
    missing: Missing,
    table: Table,
    *,
    prompt: str,
    process: Process,
    settings: FillSettings,
    compute_dtype: torch.dtype,
    go_on: Callable[[], bool] = lambda: True,
) -> int:
    """Embed texts and add them to the table.

    Args:
        encoder: the guide, on the process's device, in evaluation mode.
        missing: this rank's texts.
        table: of this guide and prompt.
        prompt: in front of each text.
        process: which process computes, and where it reports progress.
        settings: sizes.
        compute_dtype: float32, or bfloat16 for mixed precision.
        go_on: asked after each chunk; False ends the fill, once what there is has been written.

    Returns:
        Number of texts that were embedded; fewer than `missing` where other runs helped.

    Raises:
        RuntimeError: memory does not suffice for a single text.
    """
    log, shard = FillLog(len(missing), process), Shard(table, settings)
    embed = ChunkEmbedder(encoder, process.device, compute_dtype)
    windows = ahead(_windows(encoder, missing, table, prompt, settings, log.skip))
    with closing(windows):
        for window in windows:
            for chunk in window.chunks:
                shard.add(window.keys_n[chunk.index.numpy()], embed(chunk))
                log.add(chunk.num_texts)
                if not go_on():
                    shard.write()
                    return log.embedded
            shard.to_host()
    shard.write()
    return log.embedded


def _windows(
    encoder: Encoder,
    missing: Missing,
    table: Table,
    prompt: str,
    settings: FillSettings,
    skip: Callable[[int], None],
) -> Iterator[TextWindow]:
    """The texts in tokens, less what other runs have added since `missing` was found."""
    order = np.argsort(missing.keys_n)
    sorted_keys, place = missing.keys_n[order], np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    here, seen = np.zeros(len(order), dtype=bool), set[str]()
    window_n = missing.place_n // settings.window_texts  # ascending
    for window in np.random.default_rng().permutation(np.unique(window_n)).tolist():
        new = set(table.shards()) - seen
        seen |= new
        here |= table.present(sorted_keys, new)
        part = np.arange(*np.searchsorted(window_n, (window, window + 1)))
        left = part[~here[place[part]]]
        skip(len(part) - len(left))
        if len(left):
            rest = missing[left]
            chunks = tokenized_chunks(encoder, rest.read(), prompt, settings.chunk_tokens)
            yield TextWindow(rest.keys_n, chunks)


def tokenized_chunks(
    encoder: Encoder, texts: Sequence[str], prompt: str, chunk_tokens: int
) -> tuple[Chunk, ...]:
    """Texts with a prompt in front as chunks of at most so many computed tokens, sorted by length."""
    tokenizer = encoder.tokenizer
    token_ids, prompt_length = tokenizer(texts, prompt)
    return make_chunks(
        token_ids,
        [prompt_length] * len(token_ids),
        chunk_rows=None,
        chunk_tokens=chunk_tokens,
        pad_id=tokenizer.pad_id,
        padding_side=tokenizer.padding_side,
    )


def ahead(windows: Iterator[T]) -> Generator[T]:
    """The same windows; a thread makes the next one while one is in use."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, windows, None)
        while (window := coming.result()) is not None:
            coming = thread.submit(next, windows, None)
            yield window


@final
class ChunkEmbedder:
    """Embeds chunks, in halves as often as memory has run out; all further ones are cut likewise.

    Args:
        encoder: in evaluation mode.
        device: the encoder's.
        compute_dtype: float32, or bfloat16 or float16 for mixed precision.
    """

    def __init__(self, encoder: Encoder, device: torch.device, compute_dtype: torch.dtype) -> None:
        self._encoder, self._device = encoder, device
        self._compute_dtype = compute_dtype
        self._num_halvings = 0

    @torch.inference_mode()
    def __call__(self, chunk: Chunk) -> Tensor:
        """Embeddings of a chunk: [n, D].

        Raises:
            RuntimeError: memory does not suffice for a single text.
        """
        chunks: Sequence[Chunk] = (chunk,)
        for _ in range(self._num_halvings):
            chunks = halve_chunks(chunks)

        def halve() -> bool:
            nonlocal chunks
            if all(part.num_texts <= 1 for part in chunks):
                return False
            chunks = halve_chunks(chunks)
            self._num_halvings += 1
            return True

        def embed() -> Tensor:
            mixed = self._compute_dtype != torch.float32
            with torch.autocast(self._device.type, dtype=self._compute_dtype, enabled=mixed):
                return torch.cat([self._encoder(part.to(self._device)) for part in chunks])

        return retried(embed, halve)  # halves are in the order of the chunk


class Shard:
    """Embeddings that are not yet written."""

    def __init__(self, table: Table, settings: FillSettings) -> None:
        self._table, self._settings = table, settings
        self._keys: list[np.ndarray] = []
        self._rows: list[Tensor] = []  # in the table's dtype
        self._start_s = self._written_s = time.monotonic()

    def add(self, keys_n: np.ndarray, rows_nD: Tensor) -> None:
        """Take the embeddings of a chunk, and write a shard if one is due."""
        self._keys.append(keys_n)
        self._rows.append(rows_nD.to(getattr(torch, self._table.dtype)))
        now = time.monotonic()
        due_s = max(self._settings.shard_s, (now - self._start_s) / 20)
        if (
            now - self._written_s >= due_s
            or sum(map(len, self._keys)) >= self._settings.shard_texts
        ):
            self.write()

    def to_host(self) -> None:
        """Free the device; waits for it, so that this is for the end of a window."""
        if self._rows:
            self._rows = [torch.cat(self._rows).cpu()]

    def write(self) -> None:
        """Write what there is."""
        if self._keys:
            rows_nD = torch.cat([rows.cpu() for rows in self._rows]).numpy()
            self._table.add(np.concatenate(self._keys), rows_nD)
        self._keys, self._rows = [], []
        self._written_s = time.monotonic()


class FillLog:
    """Counts texts and reports progress every `SAY_S` seconds.

    Args:
        total: texts of this process.
        process: where it reports.
        label: begins each line.
        unit: what is counted.
    """

    def __init__(
        self, total: int, process: Process, *, label: str = "guide", unit: str = "texts"
    ) -> None:
        self._label, self._unit = label, unit
        self.embedded = 0
        self._skipped = 0
        self._total = total
        self._say = process.say
        ranks = f" on each of {process.world_size} ranks" if process.world_size > 1 else ""
        self._ranks = ranks
        self._start_s = self._reported_s = time.monotonic()

    def skip(self, num_texts: int) -> None:
        """Count texts that others have embedded."""
        self._skipped += num_texts

    def add(self, num_texts: int) -> None:
        """Count texts that are embedded."""
        self.embedded += num_texts
        now = time.monotonic()
        if now - self._reported_s >= SAY_S:
            self._reported_s = now
            done = self.embedded + self._skipped
            rate = self.embedded / (now - self._start_s)
            left = timedelta(seconds=round((self._total - done) / rate))
            self._say(
                f"{self._label}  {done:,} of {self._total:,} {self._unit}{self._ranks}  "
                f"{rate:,.0f} {self._unit}/s  left {left}"
            )
