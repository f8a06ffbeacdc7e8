"""The tiles of a panel of ragged rows, by torch's operations: logits, what is left out of them, and weights.

As in `torch_panels` logits are to base 2 in here, and entries are removed by adding `REMOVED`. A tile has a
softmax in each of its rows, which are rows or pairs of the panel. Where a guide has a threshold for each
positive, scores of queries are computed once a row, and each of its pairs gets a copy.

Shape letters: G global rows, M documents, R rows of a panel, k pairs of it, r either, W candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.device.matmul_precision import exact_products
from inbatch.losses.softmax.forms import TileSums, add_up
from inbatch.losses.softmax.panels import LOWEST, Block, guide_threshold
from inbatch.losses.softmax.products import (
    HALVES,
    Factor,
    add_product,
    multiply,
    multiply_raw,
    row_weight,
)
from inbatch.losses.softmax.ragged_spec import DOCUMENTS, QUERIES, Lists, Panel, RaggedSpec
from inbatch.losses.softmax.relation import Known, Relation
from inbatch.losses.softmax.torch_panels import COMPARED_ROWS, LN_2, REMOVED


class Reduced(NamedTuple):
    """A panel whose tiles hold ``exp(logit - peak)``."""

    tiles: list[Tensor]  # by block, [r, W]
    sums: list[TileSums]  # of each
    positive: Tensor  # [k], logits of the positives
    hardest: Tensor  # [R], largest logit of the kept negatives before hardening, -inf where none is
    removed: Tensor  # int64 scalar, entries that the guide removed


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


def _matrix(memory: Tensor, rows: int, width: int) -> Tensor:
    return memory[: rows * width].view(rows, width)


def reduce_panel(tables: Tables, scratch: Scratch, panel: Panel) -> Reduced:
    """Score a panel, leave out what is no negative, and add up exponentials."""
    spec = tables.spec
    positive_k = torch.empty_like(panel.softmaxes.weight)
    removed = torch.zeros((), dtype=torch.int64, device=positive_k.device)
    tiles = []
    for number, memory in enumerate(scratch.tiles):
        tile = _fill(tables, scratch, panel, number, memory, positive_k)
        if tables.guide is not None:
            removed += _remove_by_guide(tables, scratch, panel, number, tile)
        tiles.append(tile)
    if tables.relation is not None:
        _remove_known(tables, tables.relation, panel, tiles)
    hardest_R = torch.full_like(panel.softmaxes.starts, -torch.inf, dtype=positive_k.dtype)
    sums = []
    for block, tile in zip(spec.blocks, tiles):
        by_pair, peak_r = tables.by_pair(block), tile.amax(1)
        if block.rows == spec.target.rows:
            best_R = panel.softmaxes.max_by_row(peak_r) if by_pair else peak_r
            hardest_R = torch.maximum(hardest_R, best_R)
        if block.hardened != "none":
            _harden(tile, block, tables.lists.negatives.of(panel.own, panel.own.start), spec)
            peak_r = tile.amax(1)
        peak_r = peak_r.clamp_min(LOWEST)
        total_r = tile.sub_(peak_r[:, None]).exp2_().sum(1)
        sums.append(TileSums(by_pair, peak_r.mul_(LN_2), total_r))
    hardest_R.masked_fill_(hardest_R < LOWEST, -torch.inf)
    return Reduced(tiles, sums, positive_k.mul_(LN_2), hardest_R.mul_(LN_2), removed)


def _fill(
    tables: Tables, scratch: Scratch, panel: Panel, number: int, memory: Tensor, positive_k: Tensor
) -> Tensor:
    """A tile's logits, -inf or less where an entry is no negative; writes those of the positives."""
    spec, block = tables.spec, tables.spec.blocks[number]
    rows, candidates = (
        tables.rows_of(tables.columns, block, panel),
        tables.columns[block.candidates],
    )
    num_rows, num_pairs, width = len(rows.values), len(panel.pair_row), len(candidates.values)
    copies = tables.by_pair(block) and num_rows < num_pairs
    scores_rW = _matrix(scratch.scores if copies else memory, num_rows, width)
    multiply(rows, candidates, scores_rW, alpha=1 / (spec.temperature * LN_2))
    if block.own == "positive":
        positive_k.copy_(scores_rW[_own(tables, panel, block)])
    _leave_out(tables, panel, number, scores_rW)
    if not copies:
        return scores_rW
    tile_kW = _matrix(memory, num_pairs, width)
    return torch.index_select(scores_rW, 0, panel.pair_row, out=tile_kW)


def _own(tables: Tables, panel: Panel, block: Block) -> tuple[Tensor, Tensor]:
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


def _leave_out(tables: Tables, panel: Panel, number: int, scores_rW: Tensor) -> None:
    """Lower what is no candidate below any score: own entries, and negatives where they do not count."""
    spec, block = tables.spec, tables.spec.blocks[number]
    if block.own != "plain":
        scores_rW[_own(tables, panel, block)] = -torch.inf
    of_positives = number in spec.among_positives
    if block.candidates == QUERIES or not (of_positives or spec.negatives == "own"):
        return
    assert tables.no_negatives is not None
    if of_positives or block.rows != QUERIES:  # whose own documents are left out in any case
        scores_rW.add_(tables.no_negatives)
        return
    own = tables.lists.negatives.of(panel.own, panel.own.start)
    kept = scores_rW[own]
    scores_rW.add_(tables.no_negatives)
    scores_rW[own] = kept


def _remove_by_guide(
    tables: Tables, scratch: Scratch, panel: Panel, number: int, tile_rW: Tensor
) -> Tensor:
    """Remove what the guide scores above the threshold; returns how many, an int64 scalar."""
    spec, block = tables.spec, tables.spec.blocks[number]
    assert tables.guide is not None
    assert spec.guide is not None
    rows, candidates = tables.rows_of(tables.guide, block, panel), tables.guide[block.candidates]
    scores_rW = _matrix(scratch.guide, len(rows.values), tile_rW.shape[1])
    with exact_products():
        multiply_raw(rows, candidates, scores_rW)
    if candidates.scale is not None:
        scores_rW.mul_(candidates.scale)
    _leave_out(tables, panel, number, scores_rW)
    threshold_r = spec.guide.threshold[panel.pairs]
    if not tables.by_pair(block):  # of the row: what one of its positives would have removed
        threshold_r = -panel.softmaxes.max_by_row(-threshold_r)
    mask_rW = scores_rW
    if len(tile_rW) > len(scores_rW):
        rows = rows.take(panel.pair_row)
        mask_rW = _matrix(scratch.mask, *tile_rW.shape)
        torch.index_select(scores_rW, 0, panel.pair_row, out=mask_rW)
    mask_rW.gt_(guide_threshold(rows, threshold_r)[:, None])
    removed_r = mask_rW.sum(1)  # exact in float32 up to 2^24 candidates
    tile_rW.add_(mask_rW, alpha=REMOVED)
    return removed_r.to(torch.int64).sum()


def _remove_known(
    tables: Tables, relation: Relation, panel: Panel, tiles: Sequence[Tensor]
) -> None:
    """Remove the candidates of other rows that are known positives, some rows at a time."""
    kept = {number: tiles[number][own] for number, own in _plain_own_entries(tables, panel)}
    for begin in range(panel.own.start, panel.own.stop, COMPARED_ROWS):
        own = slice(begin, min(begin + COMPARED_ROWS, panel.own.stop))
        shift = panel.rows.start - panel.own.start
        row_k, doc_k = tables.lists.pairs.of(own, own.start)
        known = relation.known(slice(own.start + shift, own.stop + shift), row_k, doc_k)
        bounds = tables.lists.pairs.bounds[[own.start, own.stop]] - panel.pairs.start
        for block, tile in zip(tables.spec.blocks, tiles):
            found = known[block.candidates]
            if tables.by_pair(block):
                _remove(tile[int(bounds[0]) : int(bounds[1])], found, row_k)
            else:
                _remove(tile[own.start - panel.own.start : own.stop - panel.own.start], found, None)
    for number, own_entries in _plain_own_entries(tables, panel):
        tiles[number][own_entries] = kept[number]


def _plain_own_entries(tables: Tables, panel: Panel) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    for number, block in enumerate(tables.spec.blocks):
        if block.own == "plain":
            yield number, _own(tables, panel, block)


def _remove(tile_rW: Tensor, known: Known, row_r: Tensor | None) -> None:
    mask = known.mask if row_r is None else known.mask[row_r]
    if known.places is None:
        tile_rW.add_(mask, alpha=REMOVED)
    elif len(known.places):
        some = tile_rW.index_select(1, known.places).add_(mask, alpha=REMOVED)
        tile_rW.index_copy_(1, known.places, some)


def _harden(tile_RM: Tensor, block: Block, own: tuple[Tensor, Tensor], spec: RaggedSpec) -> None:
    """Multiply the logits of a block's hardened entries; `own` are those of the rows' negatives."""
    if block.hardened == "own":
        tile_RM[own] *= spec.harden_factor
        return
    kept = tile_RM[own]
    tile_RM.mul_(spec.harden_factor)
    if block.hardened == "others":
        tile_RM[own] = kept


def add_gradients(
    tables: Tables,
    scratch: Scratch,
    panel: Panel,
    reduced: Reduced,
    factors: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
) -> None:
    """Carry the weights of a panel's tiles on to queries and documents; tiles are used up.

    Args:
        tables, scratch, panel: of the panel.
        reduced: the panel.
        factors: of each tile's rows.
        gradients: of queries and documents, of which some may not be wanted.
    """
    for block, tile_rW, factor_r in zip(tables.spec.blocks, reduced.tiles, factors):
        rows, candidates = (
            tables.rows_of(tables.columns, block, panel),
            tables.columns[block.candidates],
        )
        copies = len(tile_rW) > len(rows.values)
        per_row = rows.take(panel.pair_row) if copies else rows
        tile_rW.mul_(row_weight(per_row, factor_r)[:, None])
        weights_rW = add_up(tile_rW, panel.softmaxes.starts) if copies else tile_rW
        if rows.in_16_bits:
            target = _matrix(scratch.weights, *weights_rW.shape)
            scale = 1.0 if candidates.scale is None else candidates.scale
            weights_rW = torch.mul(weights_rW, scale, out=target)
        rows_gradient, candidates_gradient = gradients[block.rows], gradients[block.candidates]
        if rows_gradient is not None and block.rows == QUERIES:
            add_product(rows_gradient[panel.rows], weights_rW, candidates.values)
        elif rows_gradient is not None:
            of_pairs_kD = rows_gradient.new_zeros(len(weights_rW), rows_gradient.shape[1])
            add_product(of_pairs_kD, weights_rW, candidates.values)
            rows_gradient.index_add_(0, panel.pair_doc, of_pairs_kD)  # no document twice
        if candidates_gradient is not None:
            add_product(candidates_gradient, weights_rW.T, rows.values)
