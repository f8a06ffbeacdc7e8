"""Batches of rows with lists, made by hand, and what a loss sees of them on one process."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from helpers.tiny import tiny_texts
from inbatch.batch.batch import Batch
from inbatch.batch.chunks import make_chunks
from inbatch.batch.documents import Documents
from inbatch.batch.slices import slice_rows
from inbatch.data.hashing import hash_texts
from inbatch.encoder.tokenize import TextTokenizer
from inbatch.losses.base import LossInput, VisibleDocuments

Rows = Sequence[tuple[str, list[str], list[str]]]  # query, positives, negatives


def make_rows(num_rows: int, *, seed: int = 0) -> Rows:
    """Rows with one to three positives and up to four negatives, often none; neighbours share texts."""
    queries, texts = (
        tiny_texts(num_rows, seed=seed + 1),
        iter(tiny_texts(8 * num_rows, seed=seed + 2)),
    )
    lengths = np.random.default_rng(seed).integers([1, 0], [4, 5], (num_rows, 2))
    rows = [
        (query, [next(texts) for _ in range(p)], [next(texts) for _ in range(n if n > 1 else 0)])
        for query, (p, n) in zip(queries, lengths)
    ]
    for i in range(0, num_rows - 1, 3):
        rows[i][2].append(rows[i + 1][1][0])  # a negative that is the next row's positive
        rows[i + 1][1].append(rows[i][1][0])  # a positive of both
    return rows


def collate_lists(
    rows: Rows,
    tokenizer: TextTokenizer,
    *,
    rank: int = 0,
    world_size: int = 1,
    chunk_rows: int | None = None,
    guided: bool = True,
    counted: bool = True,
) -> Batch:
    """A rank's slice of a global batch, whose equal texts are embedded once.

    `counted`: the batch knows the documents of all ranks.
    """
    slices = [slice_rows(np.arange(len(rows)), r, world_size) for r in range(world_size)]
    own = [rows[i] for i in slices[rank]]
    texts = [query for query, _, _ in own] + [t for _, p, n in own for t in (*p, *n)]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    ids, prompt_length = tokenizer(list(places), "") if places else ([], 0)
    chunks = make_chunks(
        ids, [prompt_length] * len(places), chunk_rows=chunk_rows, chunk_tokens=None, pad_id=0
    )
    of_ranks = tuple(sum(len(rows[i][1]) + len(rows[i][2]) for i in part) for part in slices)
    return Batch(
        chunks=chunks,
        num_rows=len(own),
        num_columns=2,
        num_global_rows=len(rows),
        labels=None,
        text_ids=hash_texts(texts),
        source="rows",
        step=0,
        num_tokens=sum(map(len, ids)),
        num_padded_tokens=sum(chunk.input_ids.numel() for chunk in chunks),
        guide_chunks=chunks if guided else (),
        documents=Documents(
            np.array([len(p) + len(n) for _, p, n in own], dtype=np.int64),
            np.array([len(p) for _, p, _ in own], dtype=np.int64),
            of_ranks if counted else None,
        ),
        copies=np.array([places[text] for text in texts], dtype=np.int64),
        scores=scores_of(own),
    )


def flat_texts(rows: Rows) -> list[str]:
    """All texts in the flat order of a batch, equal ones as often as they occur."""
    return [q for q, _, _ in rows] + list(chain.from_iterable((*p, *n) for _, p, n in rows))


def scores_of(rows: Rows) -> Tensor:
    """A score for each document, by row, between -1 and 1."""
    pairs = [f"{q} {t}" for q, p, n in rows for t in (*p, *n)]
    hashes = hash_texts(pairs) if pairs else np.zeros(0, np.uint64)
    return torch.from_numpy((hashes % np.uint64(2001)).astype(np.float32) / 1000 - 1)


def union_input(rows: Rows, values_TD: Tensor, guide_TD: Tensor | None = None) -> LossInput:
    """What the loss of all rows sees, from embeddings in the flat order."""
    counts = np.array([len(p) + len(n) for _, p, n in rows])
    positives = np.array([len(p) for _, p, _ in rows])
    documents = Documents(counts, positives)
    ids = torch.from_numpy(hash_texts(flat_texts(rows)).view(np.int64))
    sizes = [len(rows), documents.num]
    return LossInput(
        values_TD.split(sizes),
        slice(0, len(rows)),
        guide=None if guide_TD is None else guide_TD.split(sizes),
        text_ids=ids.split(sizes),
        scores=scores_of(rows),
        documents=VisibleDocuments(
            torch.from_numpy(documents.owner),
            torch.from_numpy(documents.is_positive),
            0,
            counts,
            positives,
        ),
    )
