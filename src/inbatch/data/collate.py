"""Row numbers -> Batch: read, tokenize, cut into chunks.

Shape letters: C text columns, B local rows, N = C * B texts.

`BatchDataset` is what a DataLoader's worker runs: its items are slices of the plan, so the order of
the rows is decided elsewhere (data/plan/) and a worker only reads the rows that it is given. `Collator` is
a value; both pickle, for workers that are forked and for workers that are spawned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch.utils.data import Dataset

from inbatch.batch.batch import Batch, Chunk
from inbatch.batch.chunks import make_chunks
from inbatch.data.plan.plan import PlannedSlice
from inbatch.data.read import ReadRows, read_mixed, read_rows
from inbatch.data.sources.choice import Draw
from inbatch.data.sources.columns import resolve_prompts
from inbatch.data.sources.source import Source
from inbatch.data.tokenized import Prompted, Tokenize, tokens_of
from inbatch.encoder.static_files import UNLIMITED
from inbatch.errors import ConfigError

#: Name of the source of a batch that holds rows of several.
MIXED = "mixed"


@final
@dataclass(frozen=True, kw_only=True)
class Collator:
    """Texts of some rows -> Batch.

    Args:
        tokenizer: The encoder's tokenizer.
        chunk_rows: Most texts of a chunk; None for no limit.
        chunk_tokens: Most computed tokens of a chunk; None for no limit. Where the tokenizer cuts no text, a
            chunk holds the longest of the batch in any case.
        prompts: Prompt by role or column, see `columns.resolve_prompts`; those of a source win.
        guide_tokenizer: Set to have the same texts in the guide's tokens as well.
        guide_chunk_tokens: As `chunk_tokens`, for the guide's chunks.
        guide_prompts: As `prompts`, for the guide; prompts of a source do not apply to it.

    Raises:
        ConfigError: A chunk size that cannot hold the longest text a tokenizer may give.
    """

    tokenizer: Tokenize
    chunk_rows: int | None = None
    chunk_tokens: int | None = None
    prompts: Mapping[str, str] | None = None
    guide_tokenizer: Tokenize | None = None
    guide_chunk_tokens: int | None = None
    guide_prompts: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.chunk_rows is not None and self.chunk_rows < 1:
            raise ConfigError(
                "gradcache.chunk_rows", "is below 1", "set at least 1", value=self.chunk_rows
            )
        self._check_budget("chunk_tokens", self.chunk_tokens, self.tokenizer)
        if self.guide_tokenizer is not None:
            self._check_budget("guide_chunk_tokens", self.guide_chunk_tokens, self.guide_tokenizer)

    def __call__(
        self,
        source: Source,
        rows: np.ndarray,
        *,
        step: int,
        num_global_rows: int,
        draw: Draw | None = None,
    ) -> Batch:
        """The batch of these rows of `source`; without chunks when there are no rows.

        `draw` decides which documents of their lists they bring; None takes all.
        """
        read = read_rows(source, rows, want_texts=self.wants_texts, draw=draw)
        return self.collate(
            read, source, name=source.name, step=step, num_global_rows=num_global_rows
        )

    @property
    def wants_texts(self) -> bool:
        """True if texts are read even where the encoder's tokens are stored."""
        return self.guide_tokenizer is not None

    def column_prompts(self, source: Source) -> tuple[str, ...]:
        """The prompt of each text column of a source."""
        return source.column_prompts(self.prompts)

    def collate(
        self, read: ReadRows, source: Source, *, name: str, step: int, num_global_rows: int
    ) -> Batch:
        """The batch of rows that have been read; roles and prompts are those of `source`."""
        guide = None
        if self.guide_tokenizer is not None:
            prompts = resolve_prompts(self.guide_prompts, source.roles, field="guide_prompts")
            guide = Prompted(self.guide_tokenizer, prompts)
        encoder = Prompted(self.tokenizer, self.column_prompts(source))
        tokens = tokens_of(read, encoder, guide)
        guide_chunks: tuple[Chunk, ...] = ()
        if tokens.of_guide is not None and self.guide_tokenizer is not None:
            guide_chunks = self._chunks(
                *tokens.of_guide,
                tokenizer=self.guide_tokenizer,
                chunk_tokens=self.guide_chunk_tokens,
            )
        chunks = self._chunks(
            *tokens.of_encoder,
            tokenizer=self.tokenizer,
            chunk_tokens=self.chunk_tokens,
        )
        return Batch(
            chunks=chunks,
            num_rows=read.num_rows,
            num_columns=read.num_columns,
            num_global_rows=num_global_rows,
            labels=None if read.labels is None else torch.from_numpy(read.labels),
            text_ids=read.text_ids,
            source=name,
            step=step,
            num_tokens=sum(int(chunk.attention_mask.sum()) for chunk in chunks),
            num_padded_tokens=sum(chunk.input_ids.numel() for chunk in chunks),
            guide_chunks=guide_chunks,
            documents=read.documents,
            copies=tokens.copies,
            scores=None if read.scores is None else torch.from_numpy(read.scores),
        )

    def _chunks(
        self,
        token_ids: Sequence[Sequence[int]],
        prompt_lengths: Sequence[int],
        *,
        tokenizer: Tokenize,
        chunk_tokens: int | None,
    ) -> tuple[Chunk, ...]:
        if chunk_tokens is not None and tokenizer.max_length >= UNLIMITED:
            chunk_tokens = max(chunk_tokens, max(map(len, token_ids), default=0))
        return make_chunks(
            token_ids,
            prompt_lengths,
            chunk_rows=self.chunk_rows,
            chunk_tokens=chunk_tokens,
            pad_id=tokenizer.pad_id,
            padding_side=tokenizer.padding_side,
        )

    def _check_budget(self, key: str, budget: int | None, tokenizer: Tokenize) -> None:
        # Of texts without a limit the longest of a batch counts, see `_chunks`.
        if budget is not None and budget < tokenizer.max_length < UNLIMITED:
            raise ConfigError(
                key,
                f"cannot hold one text of max_length={tokenizer.max_length} tokens",
                f"raise it to at least {tokenizer.max_length} or lower max_length",
                value=budget,
            )


def check_mixable(sources: Sequence[Source], *, one_loss: bool) -> None:
    """Check that rows of these sources can be in one batch.

    Raises:
        ConfigError: they differ in their loss, in having lists or labels, in their numbers of columns, or in
            prompts.
    """
    if not one_loss:
        raise ConfigError(
            "sampler.mixed",
            "needs one loss for all sources, and loss gives one for each",
            "give one loss, or set sampler.mixed=false",
            value=True,
        )
    first = sources[0]
    for other in sources[1:]:
        for what, a, b in (
            ("whether rows have lists", first.is_ragged, other.is_ragged),
            ("number of text columns", _width(first), _width(other)),
            ("whether they have labels", first.has_labels, other.has_labels),
            ("prompts", first.prompts, other.prompts),
        ):
            if a != b:
                raise ConfigError(
                    "sampler.mixed",
                    f"puts rows of '{first.name}' and '{other.name}' in one batch, but they "
                    f"differ in {what} ({a} and {b})",
                    "make them equal, or set sampler.mixed=false",
                    value=True,
                )


def widest_source(sources: Sequence[Source]) -> Source:
    """The source whose roles and prompts are those of a batch of several: one with the most columns."""
    return max(sources, key=lambda source: len(source.columns))


def _width(source: Source) -> int:
    """Columns of its batches."""
    return 2 if source.is_ragged else len(source.columns)


@final
class BatchDataset(Dataset[Batch]):
    """Batches by `PlannedSlice`, for a DataLoader with ``batch_size=None`` and a slice sampler.

    `seed` decides, with the number of the plan, which documents are drawn from lists.
    """

    def __init__(self, sources: Sequence[Source], collator: Collator, *, seed: int = 0) -> None:
        self.sources = tuple(sources)
        self.collator = collator
        self.seed = seed

    def __getitem__(self, item: PlannedSlice) -> Batch:
        """Read and collate the rows of one slice."""
        draw, wants_texts = Draw(self.seed, item.epoch), self.collator.wants_texts
        if item.sources is None:
            source = self.sources[item.source]
            name = source.name
            read = read_rows(source, item.rows, want_texts=wants_texts, draw=draw)
        else:
            source, name = widest_source(self.sources), MIXED
            read = read_mixed(
                self.sources, item.sources, item.rows, want_texts=wants_texts, draw=draw
            )
        batch = self.collator.collate(
            read, source, name=name, step=item.step, num_global_rows=item.num_global_rows
        )
        if batch.documents is None:
            return batch
        documents = batch.documents._replace(of_ranks=item.documents_of_ranks)
        return batch._replace(documents=documents)
