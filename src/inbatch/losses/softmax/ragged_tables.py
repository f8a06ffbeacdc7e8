"""What the panels of ragged rows share, and where a block has its own entries.

Shape letters: G global rows, M documents, R rows of a panel, k pairs of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inbatch.losses.softmax.panels import Block
from inbatch.losses.softmax.products import HALVES, Factor
from inbatch.losses.softmax.ragged_spec import DOCUMENTS, QUERIES, Lists, Panel, RaggedSpec
from inbatch.losses.softmax.relation import Relation


@dataclass(frozen=True, slots=True)
class Tables:
    """What all panels share."""

    spec: RaggedSpec
    columns: Sequence[Factor]  # queries [G, D], documents [M, D]
    guide: Sequence[Factor] | None
    lists: Lists
    relation: Relation | None
    # [M], `REMOVED` for negatives and 0 for positives; None where none is left out for being a negative
    no_negatives: Tensor | None

    @property
    def widths(self) -> list[int]:
        """Rows of each column."""
        return [len(factor.values) for factor in self.columns]

    def rows_of(self, factors: Sequence[Factor], block: Block, panel: Panel) -> Factor:
        """The rows of a block: queries [R], or positives [k]."""
        if block.rows == QUERIES:
            return factors[QUERIES][panel.rows]
        return factors[DOCUMENTS].take(panel.pair_doc)

    def by_pair(self, block: Block) -> bool:
        """Whether each pair is a softmax in a block."""
        return block.rows != QUERIES or self.spec.by_pair


class Scratch:
    """Memory that each panel overwrites, as large as the largest of them needs."""

    def __init__(self, tables: Tables, num_rows: int, num_pairs: int) -> None:
        spec, like = tables.spec, tables.columns[0].values
        widths, widest = tables.widths, max(tables.widths)
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.tiles = [
            like.new_empty(
                (num_pairs if tables.by_pair(block) else num_rows) * widths[block.candidates],
                dtype=dtype,
            )
            for block in spec.blocks
        ]
        rows, pairs = num_rows * widest, num_pairs * widest
        copies = spec.by_pair and int(spec.documents.positives.max()) > 1
        self.scores = like.new_empty(rows if copies else 0, dtype=dtype)
        self.weights = like.new_empty(pairs if like.dtype in HALVES else 0)
        self.guide = self.mask = like.new_empty(0)
        if tables.guide is not None:
            theirs = tables.guide[0].values.dtype
            self.guide = like.new_empty(pairs, dtype=torch.promote_types(theirs, torch.float32))
            self.mask = torch.empty_like(self.guide) if copies else self.guide


def matrix(memory: Tensor, rows: int, width: int) -> Tensor:
    """A matrix [rows, width] at the beginning of scratch memory."""
    return memory[: rows * width].view(rows, width)


def own_entries(tables: Tables, panel: Panel, block: Block) -> tuple[Tensor, Tensor]:
    """Where a block has its own entries."""
    if (block.rows, block.candidates) == (QUERIES, DOCUMENTS):
        return panel.pair_row, panel.pair_doc
    if block.rows == QUERIES:
        rows_R = torch.arange(panel.rows.stop - panel.rows.start, device=panel.pair_row.device)
        return rows_R, rows_R + panel.rows.start
    if block.candidates == QUERIES:
        pairs_k = torch.arange(len(panel.pair_row), device=panel.pair_row.device)
        return pairs_k, panel.pair_row + panel.rows.start
    return tables.lists.siblings.of(panel.own, panel.pairs.start)
