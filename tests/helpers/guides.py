"""Small guides, sources and fills for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from helpers.tiny import tiny_texts
from inbatch.data.hashing import hash_texts
from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder, build_encoder
from inbatch.guide import Process
from inbatch.guide.fill import FillSettings, fill
from inbatch.guide.missing import columns_by_prompt, find_missing
from inbatch.guide.store import Table

ALONE = Process(device=torch.device("cpu"))


def make_guide(path: Path, **options: object) -> Encoder:
    """The tiny guide, always with the same weights."""
    return build_encoder(str(path), **options).eval()  # type: ignore[arg-type]


def make_source(num_rows: int = 40, *, seed: int = 1) -> Source:
    """Triplets; one text in four occurs twice, once in another column."""
    texts = tiny_texts(3 * num_rows, seed=seed, min_words=3)
    for i in range(0, num_rows, 4):
        texts[num_rows + i] = texts[i + 1]
    names = ("query", "positive", "negative")
    return Source.from_columns(
        "rows", {name: texts[i * num_rows : (i + 1) * num_rows] for i, name in enumerate(names)}
    )


def distinct_texts(source: Source) -> list[str]:
    """All texts of a source, once each."""
    columns, _ = source.read(np.arange(source.num_rows))
    return list(dict.fromkeys(text for texts in columns for text in texts))


class Counter:
    """Counts the texts that an encoder embeds."""

    def __init__(self, encoder: Encoder) -> None:
        self.num_texts = 0
        encoder.register_forward_hook(self._add)

    def _add(self, module: object, args: tuple, output: object) -> None:
        self.num_texts += args[0].num_texts


def fill_table(
    encoder: Encoder,
    source: Source,
    table: Table,
    *,
    process: Process = ALONE,
    go_on: Callable[[], bool] = lambda: True,
    **settings: float,
) -> int:
    """Add what the table lacks of the source, without prompt; returns how many were embedded."""
    missing = find_missing(
        columns_by_prompt([source], {})[""],
        table,
        rank=process.rank,
        world_size=process.world_size,
    )
    sizes = FillSettings(**{"chunk_tokens": 256, "window_texts": 16, "shard_texts": 16, **settings})  # type: ignore[arg-type]
    return fill(
        encoder,
        missing,
        table,
        prompt="",
        process=process,
        settings=sizes,
        compute_dtype=torch.float32,
        go_on=go_on,
    )


def rows_of(table: Table, texts: list[str]) -> np.ndarray:
    """The stored rows of some texts; all must be there."""
    out = np.empty((len(texts), table.dimension), dtype=table.dtype)
    assert table.open().take(hash_texts(texts), out).all()
    return out
