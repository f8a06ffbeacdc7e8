"""Embed texts into a folder, what it does not hold yet; every rank calls `embed_corpus`.

The texts are cut into shards, each of which is sorted by length, cut into chunks of equal computed tokens
and embedded by itself (shards.py). So what stands in a chunk follows from the texts alone: not from the
number of ranks, nor from where an earlier run was stopped. Rank r of W embeds the shards r, r + W, ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

import numpy as np
import torch

from inbatch.corpus.form import DType, Form, read_ranges
from inbatch.corpus.identity import begin, check_rank, describe
from inbatch.corpus.shards import ShardEmbedder
from inbatch.corpus.store import (
    RANGES,
    Manifest,
    StoredEmbeddings,
    missing_shards,
    open_embeddings,
    read_manifest,
    write_array,
)
from inbatch.corpus.texts import Texts
from inbatch.data.hashing import hash_json
from inbatch.encoder import Encoder
from inbatch.encoder.transformer import TransformerEncoder
from inbatch.errors import ConfigError
from inbatch.files import remove_unfinished
from inbatch.guide.base import Process
from inbatch.guide.visible import once_visible, visible_until
from inbatch.run.memory_plan import usual_chunk_tokens

T = TypeVar("T")

_SHARDS = 256  # of a corpus, where these then have sizes within the next two
_LEAST_TEXTS, _MOST_TEXTS = 2048, 65536


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSettings:
    """How texts are embedded and stored.

    chunk_tokens: most computed tokens of one forward, at least the encoder's `max_length`. None for the
        device's usual number, which follows from its kind and the width of the model.
    compute_dtype: float32, or bfloat16 or float16 for mixed precision.
    normalize: scale what is stored to length one.
    dtype: of the stored values.
    shard_texts: texts of a shard; None for about 256 shards of 2,048 to 65,536 texts.
    ranges: of int8 and uint8, a file or folder that has them; None takes those of `calibration_texts`.
    calibration_texts: evenly spaced texts whose embeddings give the ranges.
    field: configuration key of the encoder.
    """

    chunk_tokens: int | None = None
    compute_dtype: torch.dtype = torch.float32
    normalize: bool = False
    dtype: DType = "float32"
    shard_texts: int | None = None
    ranges: str | None = None
    calibration_texts: int = 10_000
    field: str = "encoder"


def embed_corpus(
    encoder: Encoder,
    texts: Texts,
    folder: str | Path,
    *,
    prompt: str = "",
    process: Process,
    settings: EmbedSettings = EmbedSettings(),
    ids: Texts | None = None,
) -> StoredEmbeddings:
    """Embed all texts that a folder does not hold yet, and open it; arguments and errors of `fill_folder`."""
    fill_folder(encoder, texts, folder, prompt=prompt, process=process, settings=settings, ids=ids)
    return open_embeddings(folder)


def fill_folder(
    encoder: Encoder,
    texts: Texts,
    folder: str | Path,
    *,
    prompt: str = "",
    process: Process,
    settings: EmbedSettings = EmbedSettings(),
    ids: Texts | None = None,
) -> Manifest:
    """Embed all texts that a folder does not hold yet; what it is then complete with.

    Args:
        encoder: on any device; it is left on that of the process, in evaluation mode. Its `truncate_dim`
            leading dimensions are stored.
        texts: what to embed; read once for their hash by rank 0, and once more in windows.
        folder: seen by all ranks; missing ones are made.
        prompt: in front of each text.
        process: which of how many this is, and where it reports progress.
        settings: sizes and types.
        ids: of the texts, stored beside the embeddings.

    Raises:
        ConfigError: there is no text, or fewer ids; the folder holds embeddings of something else; one is
            not finite; the folder does not show what other ranks have written.
    """
    folder = Path(folder)
    if len(texts) == 0 or (ids is not None and len(ids) != len(texts)):
        what = "no texts" if len(texts) == 0 else f"{len(texts)} texts and {len(ids or ())} ids"
        raise ConfigError("texts", f"holds {what}", "give texts, each with an id or none")
    encoder = encoder.eval()
    form = Form(
        dimension=encoder.output_dimension, normalize=settings.normalize, dtype=settings.dtype
    )
    ranges_2D = None
    if form.needs_ranges and settings.ranges is not None:
        ranges_2D = read_ranges(settings.ranges, form.dimension)
    chunk_tokens = forward_tokens(encoder, settings.chunk_tokens, process.device)
    if process.rank == 0:
        made_from = describe(
            encoder,
            texts,
            ids,
            prompt=prompt,
            precision=str(settings.compute_dtype).removeprefix("torch."),
            chunk_tokens=chunk_tokens,
            ranges=_origin(form, ranges_2D, settings),
        )
        new = Manifest(
            num_texts=len(texts),
            shard_texts=settings.shard_texts or shard_size(len(texts)),
            form=form,
            has_ids=ids is not None,
            made_from=made_from,
        )
        begin(folder, new)
        remove_unfinished(folder)
    process.barrier()
    manifest = _once_visible(lambda: read_manifest(folder), folder, process)
    check_rank(encoder, folder, manifest, process)
    if not manifest.file:  # else it was finished before
        work = ShardEmbedder(
            encoder.to(process.device),
            texts,
            prompt=prompt,
            device=process.device,
            chunk_tokens=chunk_tokens,
            compute_dtype=settings.compute_dtype,
            form=form,
            field=settings.field,
        )
        if form.needs_ranges:
            if process.rank == 0 and not (folder / RANGES).is_file():
                if ranges_2D is None:
                    ranges_2D = work.ranges(settings.calibration_texts)
                write_array(folder / RANGES, ranges_2D)
            process.barrier()
            _once_visible(lambda: (folder / RANGES).is_file() or None, folder, process)
            ranges_2D = read_ranges(folder, form.dimension)
        work.fill(folder, manifest, process, ids=ids, ranges_2D=ranges_2D)
    process.barrier()
    _once_visible(lambda: None if missing_shards(folder, manifest) else True, folder, process)
    return manifest


def forward_tokens(encoder: Encoder, chunk_tokens: int | None, device: torch.device) -> int:
    """Most computed tokens of a forward, at least those of the longest text.

    Args:
        encoder: whose `max_length` and width count.
        chunk_tokens: what is set, None for the device's usual number.
        device: where it computes.
    """
    layers = 1 if isinstance(encoder, TransformerEncoder) else 0
    usual = usual_chunk_tokens(device.type, encoder.width, layers=layers)
    return max(chunk_tokens or usual, encoder.tokenizer.max_length)


def shard_size(num_texts: int) -> int:
    """Texts of a shard: a power of two that makes about 256 of them, in reason."""
    wanted = max(num_texts // _SHARDS, 1)
    return min(max(1 << (wanted - 1).bit_length(), _LEAST_TEXTS), _MOST_TEXTS)


def _origin(form: Form, ranges_2D: np.ndarray | None, settings: EmbedSettings) -> str:
    """Where the ranges of int8 and uint8 come from, "" for other types."""
    if not form.needs_ranges:
        return ""
    if ranges_2D is None:
        return f"of {settings.calibration_texts} texts"
    return f"given, {hash_json(ranges_2D.tolist())}"


def _once_visible(look: Callable[[], T | None], folder: Path, process: Process) -> T:
    """What `look` finds, which may take a while to become visible where other nodes have written it."""

    def missing() -> ConfigError:
        return ConfigError(
            str(folder),
            f"does not show on rank {process.rank} what all ranks have written",
            "name a folder that every node sees",
        )

    return once_visible(look, missing, deadline_s=visible_until(process), every_s=0.1)
