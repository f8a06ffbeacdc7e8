"""Arithmetic on one panel of logits, in place. `streaming` walks over panels and explains why.

A panel is one tile a block; row r of all its tiles together is one softmax. `part` names the rows
of the panel among those of the `Pairing`: where they meet their own entries, these are on the diagonal
from ``part.start`` on.

Shape letters: G global rows, R rows of a panel, D dimension, E guide dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from inbatch.device.matmul_precision import exact_products


@dataclass(frozen=True, slots=True)
class Block:
    """Scores of the owned rows of one column against all rows of another.

    Entry (i, i) pairs two texts of the same example. `own` says what it is: "positive" (the target;
    never removed by the guide; exactly one block of a softmax has it), "masked" (left out: a text
    against itself, or against another text of its own example), "plain" (like any other).
    `hardened` entries get ``hardness_strength * score`` added to their logit, without gradient.
    """

    rows: int  # column numbers
    candidates: int
    own: Literal["positive", "masked", "plain"]
    hardened: Literal["none", "own", "others", "all"] = "none"


@dataclass(frozen=True, slots=True)
class GuideFilter:
    """Leave out entry (i, j) where the guide scores the two texts above the threshold of row i."""

    columns: tuple[Tensor, ...]  # each [G, E], unit length
    threshold: Tensor  # [G]


@dataclass(frozen=True, slots=True)
class GuideScratch:
    """Buffers that `mask_tile` overwrites; as many rows as the largest panel."""

    scores: Tensor  # [R, G]
    mask: Tensor  # [R, G] bool


@dataclass(frozen=True, slots=True)
class ScoredTexts:
    """The texts of some rows, by column: embeddings, guide embeddings and ids."""

    columns: Sequence[Tensor]  # each [G, D], as scores take them
    guide: Sequence[Tensor] | None = None  # each [G, E], unit length
    ids: Sequence[Tensor] | None = None  # each int64 [G], equal where texts are equal


@dataclass(frozen=True, slots=True)
class Pairing:
    """The rows and candidates of a tile. With `own`, candidate i belongs to row i; else none to any."""

    rows: ScoredTexts
    candidates: ScoredTexts
    own: bool = True

    def diagonal(self, tile_RG: Tensor, part: slice) -> Tensor:
        """The own entries of a tile, as a view: [R], or [0] where none is there."""
        return tile_RG.diagonal(part.start if self.own else tile_RG.shape[1])


def fill_tile(
    tile_RG: Tensor, block: Block, pairing: Pairing, part: slice, *, temperature: float
) -> None:
    """Write a block's logits."""
    rows_RD = pairing.rows.columns[block.rows][part]
    candidates_GD = pairing.candidates.columns[block.candidates]
    torch.addmm(tile_RG, rows_RD, candidates_GD.T, beta=0, alpha=1 / temperature, out=tile_RG)


def mask_tile(
    tile_RG: Tensor,
    block: Block,
    pairing: Pairing,
    part: slice,
    *,
    threshold: Tensor,
    scratch: GuideScratch,
) -> Tensor:
    """Set to -inf what the guide scores above the threshold [G]; returns how many, an int64 scalar."""
    assert pairing.rows.guide is not None
    assert pairing.candidates.guide is not None
    rows_RE = pairing.rows.guide[block.rows][part]
    candidates_GE = pairing.candidates.guide[block.candidates]
    scores_RG, mask_RG = scratch.scores[: len(tile_RG)], scratch.mask[: len(tile_RG)]
    with exact_products():
        torch.mm(rows_RE, candidates_GE.T, out=scores_RG)
    torch.gt(scores_RG, threshold[part, None], out=mask_RG)
    if block.own != "plain":
        pairing.diagonal(mask_RG, part).fill_(False)
    tile_RG.masked_fill_(mask_RG, -torch.inf)
    return torch.count_nonzero(mask_RG)


def mask_equal_texts(tile_RG: Tensor, block: Block, pairing: Pairing, part: slice) -> None:
    """Set to -inf the candidates of other rows that are known to be positives of a row's query.

    These are texts equal to the row's query or positive, and query and positive of each row that shares a
    text with them: where a query has two positives, both rows' positives belong to both.
    """
    assert pairing.rows.ids is not None
    assert pairing.candidates.ids is not None
    own_R1 = [ids_G[part, None] for ids_G in pairing.rows.ids[:2]]
    of_pair = block.candidates < 2
    others_G = pairing.candidates.ids[:2] if of_pair else [pairing.candidates.ids[block.candidates]]
    equal_RG = torch.zeros_like(tile_RG, dtype=torch.bool)
    for one_R1 in own_R1:
        for other_G in others_G:
            equal_RG |= one_R1 == other_G
    if of_pair:  # every row shares its texts with itself
        pairing.diagonal(equal_RG, part).fill_(False)
    tile_RG.masked_fill_(equal_RG, -torch.inf)


def harden_tile(tile_RG: Tensor, block: Block, own_R: Tensor, *, factor: float) -> None:
    """Multiply the logits of a block's hardened entries; `own_R` is the view of the own ones."""
    if block.hardened == "own":
        own_R.mul_(factor)
    elif block.hardened == "all":
        tile_RG.mul_(factor)
    elif block.hardened == "others":
        kept_R = own_R.clone()
        tile_RG.mul_(factor)
        own_R.copy_(kept_R)


def exponentiate(tiles: Sequence[Tensor], shift_R: Tensor) -> Tensor:
    """Turn logits into ``exp(logit - shift)``; returns the sum of each row."""
    total_R = torch.zeros_like(shift_R)
    for tile_RG in tiles:
        tile_RG.sub_(shift_R[:, None]).exp_()
        total_R += tile_RG.sum(1)
    return total_R


def add_gradients(
    tile_RG: Tensor,
    block: Block,
    pairing: Pairing,
    gradients: tuple[Sequence[Tensor | None], Sequence[Tensor | None]],
    part: slice,
) -> None:
    """Carry the gradient of a block's scores, held in the tile, on to its two columns.

    `gradients` are those of the rows' columns and of the candidates', of which some may not be wanted.
    """
    rows_gradient, candidates_gradient = gradients[0][block.rows], gradients[1][block.candidates]
    if rows_gradient is not None:
        rows_gradient[part].addmm_(tile_RG, pairing.candidates.columns[block.candidates])
    if candidates_gradient is not None:
        candidates_gradient.addmm_(tile_RG.T, pairing.rows.columns[block.rows][part])
