"""A batch of texts in memory, for a loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inbatch.batch.batch import Batch
from inbatch.batch.slices import slice_rows
from inbatch.batch.transfer import pack
from inbatch.data.collate import Collator
from inbatch.data.sources.source import Source
from inbatch.encoder import Encoder
from inbatch.guide import Guide, Process


def collate_columns(
    columns: Mapping[str, Sequence[Any]],
    *,
    encoder: Encoder,
    guide: Guide | None,
    process: Process,
    step: int,
    chunk_rows: int | None,
    chunk_tokens: int | None,
) -> Batch:
    """This rank's rows of a global batch, tokenized and on its device; see `ContrastiveStep.collate`."""
    collator = Collator(
        tokenizer=encoder.tokenizer,
        chunk_rows=chunk_rows,
        chunk_tokens=chunk_tokens,
        prompts=encoder.role_prompts,
        guide_tokenizer=None if guide is None else guide.tokenizer,
        guide_prompts=None if guide is None else guide.prompts,
    )
    source = Source.from_columns("rows", columns)
    ranks, rows = range(process.world_size), np.arange(source.num_rows)
    parts = [slice_rows(rows, rank, len(ranks)) for rank in ranks]
    batch = collator(source, parts[process.rank], step=step, num_global_rows=len(rows))
    if source.ragged is not None and batch.documents is not None:
        of_ranks = tuple(int(source.ragged.document_counts(part).sum()) for part in parts)
        batch = batch._replace(documents=batch.documents._replace(of_ranks=of_ranks))
    return pack(batch).open(process.device)
