"""Embeds texts shard by shard. Shape letters: n texts of a shard, D dimensions, W values of a stored row.

Three things happen at a time: a thread reads and tokenizes the next shard, this one embeds, and another
writes the last. A text that comes several times in a shard is embedded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch

from inbatch.batch.batch import Chunk
from inbatch.corpus.form import Form
from inbatch.corpus.store import Manifest, missing_shards, write_part
from inbatch.corpus.texts import Texts
from inbatch.encoder import Encoder
from inbatch.errors import ConfigError
from inbatch.evaluation.quantise import ranges_of
from inbatch.guide.base import Process
from inbatch.guide.fill import ChunkEmbedder, FillLog, ahead, tokenized_chunks


class ReadShard(NamedTuple):
    """Tokenized texts of a shard.

    chunks: of the distinct texts, each of which is one of the rows of `distinct_n`.
    distinct_n: which of the distinct texts each text is, int64 [n].
    """

    number: int
    chunks: Sequence[Chunk]
    distinct_n: np.ndarray
    ids: list[str] | None


@final
class ShardEmbedder:
    """Embeds shards of some texts.

    Args:
        encoder: on the device, in evaluation mode.
        texts: all of them.
        prompt: in front of each.
        device: the encoder's.
        chunk_tokens: most computed tokens of one forward, at least those of the longest text.
        compute_dtype: float32, or bfloat16 or float16 for mixed precision.
        form: how embeddings are stored.
        field: configuration key of the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: Texts,
        *,
        prompt: str,
        device: torch.device,
        chunk_tokens: int,
        compute_dtype: torch.dtype,
        form: Form,
        field: str,
    ) -> None:
        self._encoder, self._texts, self._prompt, self._form = encoder, texts, prompt, form
        self._chunk_tokens = chunk_tokens
        self._compute_dtype, self._field = compute_dtype, field
        self._embed = ChunkEmbedder(encoder, device, compute_dtype)

    def fill(
        self,
        folder: Path,
        manifest: Manifest,
        process: Process,
        *,
        ids: Texts | None,
        ranges_2D: np.ndarray | None,
    ) -> None:
        """Embed and write this rank's part of the shards that a folder lacks.

        Raises:
            ConfigError: an embedding is not finite, or beyond the type, or a shard cannot be written.
            RuntimeError: memory does not suffice for a single text.
        """
        own = range(process.rank, manifest.num_shards, process.world_size)
        sizes = {shard: len(range(*manifest.bounds(shard))) for shard in own}
        log = FillLog(sum(sizes.values()), process, label="embed")
        missing = sorted(set(missing_shards(folder, manifest)) & set(own))
        log.skip(sum(sizes.values()) - sum(sizes[shard] for shard in missing))
        writer = ThreadPoolExecutor(max_workers=1)
        written: Future[None] | None = None
        with writer, closing(ahead(self._read(missing, manifest, ids))) as shards:
            for shard in shards:
                rows_nD = self._rows(shard.chunks, log)[shard.distinct_n]
                log.skip(len(shard.distinct_n) - sum(c.num_texts for c in shard.chunks))
                if written is not None:
                    written.result()
                written = writer.submit(self._write, folder, shard, rows_nD, ranges_2D)
            if written is not None:
                written.result()

    def ranges(self, most: int) -> np.ndarray:
        """Ranges of the embeddings of at most so many texts, evenly spaced, float32 [2, D]."""
        count = len(self._texts)
        places = np.unique(np.arange(min(most, count)) * count // min(most, count))
        texts = [self._texts.read(place, place + 1)[0] for place in places.tolist()]
        return ranges_of(self._rows(self._chunks(list(dict.fromkeys(texts)))))

    def _read(
        self, shards: Sequence[int], manifest: Manifest, ids: Texts | None
    ) -> Iterator[ReadShard]:
        for number in shards:
            start, stop = manifest.bounds(number)
            texts = self._texts.read(start, stop)
            places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
            distinct_n = np.fromiter(
                map(places.__getitem__, texts), dtype=np.int64, count=len(texts)
            )
            names = None if ids is None else ids.read(start, stop)
            yield ReadShard(number, self._chunks(list(places)), distinct_n, names)

    def _chunks(self, texts: Sequence[str]) -> Sequence[Chunk]:
        return tokenized_chunks(self._encoder, texts, self._prompt, self._chunk_tokens)

    def _rows(self, chunks: Sequence[Chunk], log: FillLog | None = None) -> np.ndarray:
        """Embeddings of the texts of some chunks in their order, cut, float32 [n, D]."""
        parts = []
        for chunk in chunks:  # they stay on the device, so that none waits for a copy
            parts.append(self._form.cut(self._embed(chunk)))
            if log is not None:
                log.add(chunk.num_texts)
        sorted_nD = torch.cat(parts).cpu().numpy()
        self._check_finite(sorted_nD)
        rows_nD = np.empty_like(sorted_nD)
        rows_nD[torch.cat([chunk.index for chunk in chunks]).numpy()] = sorted_nD
        return rows_nD

    def _check_finite(self, rows_nD: np.ndarray) -> None:
        if np.isfinite(rows_nD).all():
            return
        fewer_bits = self._compute_dtype != torch.float32
        raise ConfigError(
            f"{self._field}.model",
            "gives embeddings that are not finite",
            "set precision=fp32, or use another model" if fewer_bits else "use another model",
            value=self._encoder.base_model,
        )

    def _write(
        self, folder: Path, shard: ReadShard, rows_nD: np.ndarray, ranges_2D: np.ndarray | None
    ) -> None:
        write_part(folder, shard.number, self._form.stored(rows_nD, ranges_2D), shard.ids)
