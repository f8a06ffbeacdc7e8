"""What a panel of logits is made of, and what is done to it between its products.

A panel is one tile a block; row r of all its tiles together is one softmax. `part` names the rows
of the panel among those of the `Pairing`: where they meet their own entries, these are on the diagonal
from ``part.start`` on.

Shape letters: K blocks, G candidates, R rows of a panel, D dimension, E guide dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, TypeVar, final

import torch
from torch import Tensor

from inbatch.device.matmul_precision import exact_products
from inbatch.losses.softmax.pairing import Pairing
from inbatch.losses.softmax.products import Factor, multiply_raw

# Where a row has no negative: below any logit.
LOWEST = -5e29


@dataclass(frozen=True, slots=True)
class Block:
    """Scores of the owned rows of one column against all rows of another.

    Entry (i, i) pairs two texts of the same example. `own` says what it is: "positive" (the target;
    never removed by the guide, nor where another block repeats it; exactly one block of a softmax has it),
    "masked" (left out: a text against itself, or against another text of its own example), "plain" (like
    any other).
    `hardened` entries get ``hardness_strength * score`` added to their logit, without gradient.
    """

    rows: int  # column numbers
    candidates: int
    own: Literal["positive", "masked", "plain"]
    hardened: Literal["none", "own", "others", "all"] = "none"


@dataclass(frozen=True, slots=True)
class GuideFilter:
    """Leave out entry (i, j) where the guide's score of the two texts is above the threshold of row i.

    A guide's score is the cosine of its embeddings. Without these the model is its own guide: its scores are
    those of the softmax before hardening, and nothing is multiplied twice. See `spares_own` for what stays.
    """

    # Each [G, E], of unit length where `product_form` has not 16 bits; None for the scores themselves.
    columns: tuple[Tensor, ...] | None
    threshold: Tensor  # [G]


def repeats_positive(block: Block, blocks: Sequence[Block]) -> bool:
    """Whether own entries are the positive once more, as those of documents against queries."""
    target = next(block for block in blocks if block.own == "positive")
    is_pair = {block.rows, block.candidates} == {target.rows, target.candidates}
    return block.own == "plain" and is_pair


def spares_own(block: Block, blocks: Sequence[Block]) -> bool:
    """Whether a guide leaves the own entries of a block as they are, since none of them is a negative."""
    return block.own != "plain" or repeats_positive(block, blocks)


class Scoring(Protocol):
    """How scores are made of embeddings."""

    @property
    def temperature(self) -> float | Tensor:
        """Divisor of the scores; a scalar tensor where it is learned."""
        ...

    @property
    def normalize(self) -> bool:
        """Cosines, or dot products."""
        ...

    @property
    def exact_in(self) -> torch.dtype | None:
        """A 16-bit type that holds the columns' values exactly; None for none."""
        ...

    @property
    def mixed(self) -> bool:
        """Whether gradients need no more digits than 16 bits have."""
        ...


@dataclass(frozen=True, slots=True)
class Softmax:
    """The arguments without gradient that rows in columns and rows with lists share; a base class."""

    blocks: tuple[Block, ...]
    rows: slice
    temperature: float | Tensor  # a detached scalar where it is learned
    normalize: bool
    hardness_strength: float
    guide: GuideFilter | None
    text_ids: Sequence[Tensor] | None
    panel_bytes: int | None
    panel_halvings: int
    exact_in: torch.dtype | None
    mixed: bool

    @property
    def target(self) -> Block:
        """The block with the positives."""
        return next(block for block in self.blocks if block.own == "positive")

    @property
    def own_guide(self) -> GuideFilter | None:
        """The guide where that is the model itself."""
        return self.guide if self.guide is not None and self.guide.columns is None else None

    @property
    def harden_factor(self) -> float | Tensor:
        """What a hardened logit is multiplied by."""
        return 1 + self.hardness_strength * self.temperature


S = TypeVar("S", bound=Softmax)


def detached(spec: S) -> tuple[S, Tensor | None]:
    """The arguments without gradient, and the temperature with it where it is learned."""
    if not isinstance(spec.temperature, Tensor):
        return spec, None
    return replace(spec, temperature=spec.temperature.detach()), spec.temperature


@final
@dataclass(frozen=True, slots=True)
class SoftmaxSpec(Softmax):
    """The arguments of `streamed_cross_entropy` that have no gradient."""

    def of_query(self, by_block: Iterable[Tensor]) -> list[Tensor]:
        """Those of K tensors, one a block, whose rows are the target's."""
        rows = self.target.rows
        return [part for block, part in zip(self.blocks, by_block) if block.rows == rows]


@dataclass(frozen=True, slots=True)
class Buffers:
    """What each panel overwrites; as many rows as the largest."""

    tiles: list[Tensor]  # the logits of each block, [R, G]; products may bring memory of their own
    guide: Tensor | None  # [R, G], scores of one block, None without a guide
    weights: (
        Tensor | None
    )  # [R, G], of one block in 16 bits; None where they take the logits' place

    def first(self, num_rows: int) -> Buffers:
        """Those of a panel of so many rows."""
        guide, weights = (None if t is None else t[:num_rows] for t in (self.guide, self.weights))
        return Buffers([tile[:num_rows] for tile in self.tiles], guide, weights)


class Weights(NamedTuple):
    """The gradient with respect to the logits of a block, times the scales of both sides."""

    tile: Tensor  # [R, G]
    factor: Tensor | None = None  # [R], what its rows are still to be multiplied by; None for 1


class Reduced(NamedTuple):
    """The negatives of a panel's rows, each [R], and how many entries the guide removed."""

    positive: Tensor  # logit of the positive; [0] where it is not in the panel
    hardest: (
        Tensor  # largest logit of the query's kept negatives before hardening, -inf where none is
    )
    peak: Tensor  # largest logit, LOWEST at least
    negatives: Tensor  # sum of exp(logit - peak)
    removed: Tensor  # int64 scalar


def in_float64(columns: Sequence[Tensor], guide: GuideFilter | None) -> bool:
    """Whether a column, or anything of the guide, is in float64."""
    of_guide = () if guide is None else (*(guide.columns or ()), guide.threshold)
    return any(tensor.dtype == torch.float64 for tensor in (*columns, *of_guide))


class Arithmetic(Protocol):
    """What is done to a panel between its products."""

    @property
    def row_multiple(self) -> int:
        """Entries; the rows of its buffers begin at multiples of this."""
        ...

    def reduce(self, spec: SoftmaxSpec, pairing: Pairing, buffers: Buffers, part: slice) -> Reduced:
        """Fill a panel with the logits of the negatives, or what `weigh` makes of them, and reduce them."""
        ...

    def weigh(
        self, buffers: Buffers, block: int, candidates: Factor, peak_R: Tensor, factor_R: Tensor
    ) -> Weights:
        """``exp(logit - peak) * factor`` of a block, times the candidates' scale.

        Args:
            buffers: as `reduce` left them.
            block: its number.
            candidates: of the block.
            peak_R: as `reduce` returned it.
            factor_R: any.
        """
        ...


def guide_scores(
    memory_RG: Tensor, block: Block, pairing: Pairing, part: slice
) -> tuple[Tensor, Factor, Factor]:
    """The guide's products of a block, as `multiply_raw` but never in TF32, and their factors."""
    assert pairing.rows.guide is not None
    assert pairing.candidates.guide is not None
    rows = pairing.rows.guide[block.rows][part]
    candidates = pairing.candidates.guide[block.candidates]
    with exact_products():
        return multiply_raw(rows, candidates, memory_RG), rows, candidates


def guide_threshold(rows: Factor, threshold_R: Tensor) -> Tensor:
    """Threshold of products that are not multiplied by the scale of their row, [R]."""
    return threshold_R if rows.scale is None else threshold_R / rows.scale
