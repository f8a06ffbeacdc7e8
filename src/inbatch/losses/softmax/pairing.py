"""The rows and candidates of a tile, and which candidates may be known positives.

Shape letters: G rows of a column, D dimension, E guide dimension, R rows of a panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inbatch.losses.softmax.products import Factor
from inbatch.losses.softmax.relation import held_by_several


@dataclass(frozen=True, slots=True)
class ScoredTexts:
    """The texts of some rows, by column: embeddings, guide embeddings and ids."""

    columns: Sequence[Factor]  # each [G, D]
    guide: Sequence[Factor] | None  # each [G, E]
    ids: Sequence[Tensor] | None  # each [G], equal where texts are equal

    def ids_of(self, column: int) -> Sequence[Tensor]:
        """By which a candidate of a column is known: a query or a positive by both, each [G]."""
        assert self.ids is not None
        return self.ids[:2] if column < 2 else self.ids[column : column + 1]


@dataclass(frozen=True, slots=True)
class Pairing:
    """The rows and candidates of a tile. With `own`, candidate i belongs to row i; else none to any.

    Ids are small whole numbers in float32, see `pair`.
    """

    rows: ScoredTexts
    candidates: ScoredTexts
    own: bool
    # Of each column, int64 [n]: the candidates that may be known positives; None for all of them
    alike: Sequence[Tensor] | None = None

    @property
    def may_be_alike(self) -> bool:
        """Whether a candidate may be a known positive of another row."""
        return self.rows.ids is not None and (self.alike is None or any(map(len, self.alike)))

    def diagonal(self, tile_RG: Tensor, part: slice) -> Tensor:
        """The own entries of a tile, as a view: [R], or [0] where none is there."""
        return tile_RG.diagonal(part.start if self.own else tile_RG.shape[1])


def pair(rows: ScoredTexts, candidates: ScoredTexts, *, own: bool) -> Pairing:
    """Bring rows and candidates together.

    Ids become the places of the rows' ids in their order, and -1 where no row has them, in float32, in which
    a CPU compares several times as many a second. They are exact up to 2^23 rows.
    On a CPU few candidates are looked at, those that another row has a text of. Which they are would have to
    be known on the host, so on another device all are looked at.
    """
    if rows.ids is None or candidates.ids is None:
        return Pairing(rows, candidates, own)
    known = torch.cat([ids.reshape(-1) for ids in rows.ids[:2]]).sort().values

    def places(ids_G: Tensor) -> Tensor:
        place_G = torch.searchsorted(known, ids_G.contiguous()).clamp_(max=len(known) - 1)
        return torch.where(known[place_G] == ids_G, place_G, -1)

    of_rows = [places(ids_G) for ids_G in rows.ids]
    others = of_rows if candidates is rows else [places(ids_G) for ids_G in candidates.ids]
    alike = _alike(others, len(known), own=own) if known.device.type == "cpu" else None
    numbered = replace(rows, ids=[place_G.float() for place_G in of_rows])
    if candidates is rows:
        return Pairing(numbered, numbered, own, alike)
    return Pairing(
        numbered, replace(candidates, ids=[place_G.float() for place_G in others]), own, alike
    )


def _alike(places: Sequence[Tensor], num_known: int, *, own: bool) -> list[Tensor]:
    """The candidates of each column that share a text with another row: queries and positives by either."""
    is_known_G = [place_G >= 0 for place_G in places]
    if own:  # a row has its own texts
        both = torch.cat(list(places[:2]))
        row_n = torch.arange(len(places[0])).repeat(2)
        is_known_G[:2] = held_by_several(row_n, both, num_known)[both].chunk(2)
    either = is_known_G[0] | is_known_G[1]
    return [found_G.nonzero()[:, 0] for found_G in (either, either, *is_known_G[2:])]
