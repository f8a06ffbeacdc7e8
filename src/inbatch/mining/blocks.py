"""Negatives of blocks of queries: computed, written, read again.

Rank r of W computes the blocks r, r + W, ... that are not there yet. A block is the same whoever computes
it, since its queries and the tiles of documents that they meet are; it appears whole, by a rename.

Shape letters: Q queries of a block, M negatives of them, P positives of them, D dimension.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from inbatch.data.ragged import RaggedValues
from inbatch.errors import ConfigError
from inbatch.files import replaced_file
from inbatch.mining.choice import Choice
from inbatch.mining.filters import REASONS, Candidates, Limits, kept_candidates
from inbatch.mining.search import Hits, exact_scores, pair_scores
from inbatch.mining.training_set import TrainingSet
from inbatch.mining.vectors import Vectors

#: Embeddings of a block of queries, and how many documents of each are wanted -> these.
Search = Callable[[np.ndarray, int], Hits]


class Scorer(NamedTuple):
    """A model's embeddings of the queries and the documents, and how they are compared."""

    queries: Vectors
    documents: Vectors
    normalize: bool  # cosine, else dot product


class Block(NamedTuple):
    """What a block of queries got.

    counts: negatives of each query, int64 [Q].
    negatives: documents, query by query, best first, int64 [M].
    scores, guide: of the negatives, float32 [M]; `guide` is empty without one.
    positive_scores, positive_guide: of the positives of each query as `TrainingSet.positives` has them, [P].
    left_out: candidates that were left out, by reason in the order of `REASONS`, int64.
    num_candidates: that were looked at, int64 [1].
    """

    counts: np.ndarray
    negatives: np.ndarray
    scores: np.ndarray
    guide: np.ndarray
    positive_scores: np.ndarray
    positive_guide: np.ndarray
    left_out: np.ndarray
    num_candidates: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Miner:
    """Everything that the negatives follow from.

    training: what is known of the rows.
    model: whose scores decide.
    guide: another model that filters, or whose scores are kept; None for none.
    search: finds the best documents by the model.
    depth: documents that are found of each query, those that are known to match among them.
    limits: what a candidate must be.
    choice: which candidates become negatives.
    block_queries: queries of a block.
    """

    training: TrainingSet
    model: Scorer
    guide: Scorer | None
    search: Search
    depth: int
    limits: Limits
    choice: Choice
    block_queries: int

    @property
    def num_blocks(self) -> int:
        """Blocks of all queries."""
        return -(-len(self.training.queries) // self.block_queries)

    def bounds(self, block: int) -> tuple[int, int]:
        """First query of a block, and the one behind its last."""
        start = block * self.block_queries
        return start, min(start + self.block_queries, len(self.training.queries))

    def mine(self, block: int) -> Block:
        """The negatives of one block.

        Raises:
            ConfigError: an embedding is not finite.
        """
        start, stop = self.bounds(block)
        training, queries_QD = self.training, self.model.queries.rows(start, stop)
        hits = self.search(queries_QD, self.depth)
        positives = training.positives.take(np.arange(start, stop))
        shared = np.zeros(hits.numbers.shape, dtype=bool)
        if training.keys is not None:
            shared = training.keys.shared(start, stop, hits.numbers)
        guide = positive_guide = None
        if self.guide is not None:
            guide_QE = self.guide.queries.rows(start, stop)
            guide = exact_scores(
                guide_QE, self.guide.documents, hits.numbers, normalize=self.guide.normalize
            )
            positive_guide = _of_positives(self.guide, guide_QE, positives)
        found = Candidates(
            numbers=hits.numbers,
            scores=hits.scores,
            positives=positives,
            positive_scores=_of_positives(self.model, queries_QD, positives),
            same_text=training.same_text[start:stop],
            same_key=shared,
            guide=guide,
            positive_guide=positive_guide,
        )
        kept, left_out = kept_candidates(found, self.limits)
        hashes = training.documents.hashes[hits.numbers]  # of -1 that of another, which is not kept
        chosen = self.choice.choose(kept, hits.scores, training.queries.hashes[start:stop], hashes)
        none = np.empty(0, np.float32)
        return Block(
            counts=chosen.sum(axis=1),
            negatives=hits.numbers[chosen],
            scores=hits.scores[chosen],
            guide=none if guide is None else guide[chosen],
            positive_scores=found.positive_scores,
            positive_guide=none if positive_guide is None else positive_guide,
            left_out=np.array([left_out[reason] for reason in REASONS]),
            num_candidates=np.array([(hits.numbers >= 0).sum()]),
        )


def _of_positives(model: Scorer, queries_QD: np.ndarray, positives: RaggedValues) -> np.ndarray:
    """Scores of the positives of each query, float32 [P]."""
    rows = np.repeat(np.arange(positives.num_rows), positives.lengths)
    return pair_scores(
        queries_QD, rows, model.documents, positives.values, normalize=model.normalize
    )


def block_path(folder: Path, block: int) -> Path:
    """Where a block is."""
    return folder / f"block-{block:06}.npz"


def write_block(folder: Path, number: int, block: Block) -> None:
    """Write a block, which appears whole."""
    with replaced_file(block_path(folder, number)) as file:
        np.savez(file, **block._asdict())


def read_block(folder: Path, number: int) -> Block:
    """A block that was written.

    Raises:
        ConfigError: it is damaged.
    """
    path = block_path(folder, number)
    try:
        with np.load(path) as arrays:
            return Block(**{name: arrays[name] for name in Block._fields})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        fix = "delete it, and the same command makes it again"
        raise ConfigError(str(path), "is damaged", fix) from error


def read_blocks(folder: Path, num_blocks: int) -> Iterator[Block]:
    """All blocks, one after another."""
    return (read_block(folder, number) for number in range(num_blocks))
