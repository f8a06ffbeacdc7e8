"""The tiles of a panel of ragged rows, by torch's operations: logits, what is left out of them, and weights.

As in `torch_panels` logits are to base 2 in here, and entries are removed by adding `REMOVED`. A tile has a
softmax in each of its rows, which are rows or pairs of the panel. Where a guide has a threshold for each
positive, scores of queries are computed once a row, and each of its pairs gets a copy.

Shape letters: G global rows, M documents, R rows of a panel, k pairs of it, r either, W candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.losses.softmax.forms import TileSums, add_up
from inbatch.losses.softmax.panels import LOWEST, Block
from inbatch.losses.softmax.products import add_product, multiply, row_weight
from inbatch.losses.softmax.ragged_masks import (
    leave_out,
    remove_by_guide,
    remove_by_own_scores,
    remove_known,
)
from inbatch.losses.softmax.ragged_spec import QUERIES, Panel, RaggedSpec
from inbatch.losses.softmax.ragged_tables import Scratch, Tables, matrix, own_entries
from inbatch.losses.softmax.torch_panels import LN_2


class Reduced(NamedTuple):
    """A panel whose tiles hold ``exp(logit - peak)``."""

    tiles: list[Tensor]  # by block, [r, W]
    sums: list[TileSums]  # of each
    positive: Tensor  # [k], logits of the positives
    hardest: Tensor  # [R], largest logit of the kept negatives before hardening, -inf where none is
    removed: Tensor  # int64 scalar, entries that the guide removed


def reduce_panel(tables: Tables, scratch: Scratch, panel: Panel) -> Reduced:
    """Score a panel, leave out what is no negative, and add up exponentials."""
    spec = tables.spec
    positive_k = torch.empty_like(panel.softmaxes.weight)
    removed = torch.zeros((), dtype=torch.int64, device=positive_k.device)
    tiles = []
    for number, (block, memory) in enumerate(zip(spec.blocks, scratch.tiles)):
        tile = _fill(tables, scratch, panel, number, memory, positive_k)
        if tables.guide is not None:
            removed += remove_by_guide(tables, scratch, panel, number, tile)
        if spec.own_guide is not None:
            removed += remove_by_own_scores(tables, spec.own_guide, panel, block, tile)
        tiles.append(tile)
    if tables.relation is not None:
        remove_known(tables, tables.relation, panel, tiles)
    hardest_R = torch.full_like(panel.softmaxes.starts, -torch.inf, dtype=positive_k.dtype)
    sums = []
    for block, tile in zip(spec.blocks, tiles):
        by_pair, peak_r = tables.by_pair(block), tile.amax(1)
        if block.rows == spec.target.rows:
            best_R = panel.softmaxes.max_by_row(peak_r) if by_pair else peak_r
            hardest_R = torch.maximum(hardest_R, best_R)
        if block.hardened != "none":
            own = (
                tables.lists.siblings.of(panel.own, panel.pairs.start)
                if by_pair  # with its positives, which have been left out
                else tables.lists.negatives.of(panel.own, panel.own.start)
            )
            _harden(tile, block, own, spec)
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
    scores_rW = matrix(scratch.scores if copies else memory, num_rows, width)
    scores_rW = multiply(rows, candidates, scores_rW, alpha=1 / (spec.temperature * LN_2))
    if block.own == "positive":
        positive_k.copy_(scores_rW[own_entries(tables, panel, block)])
    leave_out(tables, panel, number, scores_rW)
    if not copies:
        return scores_rW
    tile_kW = matrix(memory, num_pairs, width)
    return torch.index_select(scores_rW, 0, panel.pair_row, out=tile_kW)


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
            target = matrix(scratch.weights, *weights_rW.shape)
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
