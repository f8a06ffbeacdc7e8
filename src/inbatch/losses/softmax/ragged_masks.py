"""What is left out of the tiles of ragged rows: own entries, false negatives, known positives.

Shape letters as in `ragged_tiles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from inbatch.device.matmul_precision import exact_products
from inbatch.losses.softmax.panels import Block, GuideFilter, guide_threshold, repeats_positive
from inbatch.losses.softmax.products import multiply_raw
from inbatch.losses.softmax.ragged_spec import QUERIES, Panel
from inbatch.losses.softmax.ragged_tables import Scratch, Tables, matrix, own_entries
from inbatch.losses.softmax.relation import Known, Relation
from inbatch.losses.softmax.torch_panels import (
    COMPARED_ROWS,
    REMOVED,
    own_limit,
    remove_above,
    remove_at,
)


def leave_out(tables: Tables, panel: Panel, number: int, scores_rW: Tensor) -> None:
    """Lower what is no candidate below any score: own entries, and negatives where they do not count."""
    spec, block = tables.spec, tables.spec.blocks[number]
    if block.own != "plain":
        scores_rW[own_entries(tables, panel, block)] = -torch.inf
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


def remove_by_guide(
    tables: Tables, scratch: Scratch, panel: Panel, number: int, tile_rW: Tensor
) -> Tensor:
    """Remove what the guide scores above the threshold; returns how many, an int64 scalar."""
    spec, block = tables.spec, tables.spec.blocks[number]
    assert tables.guide is not None
    assert spec.guide is not None
    rows, candidates = tables.rows_of(tables.guide, block, panel), tables.guide[block.candidates]
    scores_rW = matrix(scratch.guide, len(rows.values), tile_rW.shape[1])
    with exact_products():
        scores_rW = multiply_raw(rows, candidates, scores_rW)
    if candidates.scale is not None:
        scores_rW.mul_(candidates.scale)
    leave_out(tables, panel, number, scores_rW)
    threshold_r = _threshold(tables, spec.guide, panel, block)
    mask_rW = scores_rW
    if len(tile_rW) > len(scores_rW):
        rows = rows.take(panel.pair_row)
        mask_rW = matrix(scratch.mask, *tile_rW.shape)
        torch.index_select(scores_rW, 0, panel.pair_row, out=mask_rW)
    mask_rW.gt_(guide_threshold(rows, threshold_r)[:, None])
    removed_r = mask_rW.sum(1)  # exact in float32 up to 2^24 candidates
    tile_rW.add_(mask_rW, alpha=REMOVED)
    return removed_r.to(torch.int64).sum()


def remove_by_own_scores(
    tables: Tables, guide: GuideFilter, panel: Panel, block: Block, tile_rW: Tensor
) -> Tensor:
    """Remove the logits above the threshold; returns how many, an int64 scalar."""
    limit_r = own_limit(tables.spec, _threshold(tables, guide, panel, block))
    if not repeats_positive(block, tables.spec.blocks):
        return remove_above(tile_rW, limit_r)
    own = own_entries(tables, panel, block)
    kept = tile_rW[own]
    tile_rW[own] = -torch.inf
    removed = remove_above(tile_rW, limit_r)
    tile_rW[own] = kept
    return removed


def _threshold(tables: Tables, guide: GuideFilter, panel: Panel, block: Block) -> Tensor:
    """Of each softmax of a block, [r]; of a row it is the lowest of its positives'."""
    threshold_k = guide.threshold[panel.pairs]
    if tables.by_pair(block):
        return threshold_k
    return -panel.softmaxes.max_by_row(-threshold_k)


def remove_known(tables: Tables, relation: Relation, panel: Panel, tiles: Sequence[Tensor]) -> None:
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
    for number, entries in _plain_own_entries(tables, panel):
        tiles[number][entries] = kept[number]


def _plain_own_entries(tables: Tables, panel: Panel) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    for number, block in enumerate(tables.spec.blocks):
        if block.own == "plain":
            yield number, own_entries(tables, panel, block)


def _remove(tile_rW: Tensor, known: Known, row_r: Tensor | None) -> None:
    remove_at(tile_rW, known.places, known.mask if row_r is None else known.mask[row_r])
