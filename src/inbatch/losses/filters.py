"""False negatives by a score of query and positive: a guide's, or the model's own.

Shape letters: G global rows, K pairs of query and positive, E dimension of a guide or of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from inbatch.device.matmul_precision import factor_rounding
from inbatch.errors import ConfigError
from inbatch.losses.checks import check_choice, check_number
from inbatch.losses.pairs import full_precision
from inbatch.losses.softmax.panels import Block, GuideFilter, spares_own
from inbatch.losses.softmax.products import product_form

MarginStrategy = Literal["absolute", "relative"]
MARGIN_STRATEGIES = ("absolute", "relative")

# Two equal texts score equal in exact arithmetic but not in floating point, where it depends on the
# place in a matrix product. Scores this close to the threshold count as equal to it.
TIE_ULPS = 16


def guide_filter(
    columns: Sequence[Tensor],
    *,
    margin_strategy: MarginStrategy,
    margin: float,
    pairs: tuple[Tensor, Tensor] | None = None,
) -> GuideFilter:
    """Threshold of each row from the guide's score t of its query and positive, both [G, E].

    "absolute": ``t - margin``; "relative": ``t - |t| * margin``.

    Args:
        columns: guide embeddings of each column.
        margin_strategy, margin: see above.
        pairs: int64 [K], rows of the first two columns that are query and positive; None: each row is.
    """
    columns = [column.detach() for column in columns]
    in_16_bits = product_form(columns, mixed=True).in_16_bits  # and divided by lengths afterwards
    units = [normalize(full_precision(c), dim=1) for c in columns[: 2 if in_16_bits else None]]
    own_G = _of_pairs(units, pairs)
    threshold_G = _threshold(own_G, margin_strategy=margin_strategy, margin=margin)
    threshold_G += TIE_ULPS * torch.finfo(own_G.dtype).eps
    return GuideFilter(tuple(columns if in_16_bits else units), threshold_G)


def own_filter(
    columns: Sequence[Tensor],
    *,
    margin_strategy: MarginStrategy,
    margin: float,
    cosine: bool = True,
    pairs: tuple[Tensor, Tensor] | None = None,
) -> GuideFilter:
    """`guide_filter` with the model as its own guide: what is compared are the scores of the softmax.

    Args:
        columns: the model's embeddings of each column; no gradient passes.
        margin_strategy, margin, pairs: see `guide_filter`.
        cosine: scores are cosines, else dot products.
    """
    ends = [full_precision(column.detach()) for column in columns[:2]]
    if cosine:
        ends = [normalize(end, dim=1) for end in ends]
    own_G = _of_pairs(ends, pairs)
    threshold_G = _threshold(own_G, margin_strategy=margin_strategy, margin=margin)
    # A score errs by so much of the product of both lengths.
    rounding = max(TIE_ULPS * torch.finfo(own_G.dtype).eps, 2 * factor_rounding(own_G.dtype))
    if cosine:
        return GuideFilter(None, threshold_G + rounding)
    lengths = [torch.linalg.vector_norm(end, dim=1, keepdim=True) for end in ends]
    return GuideFilter(None, threshold_G + rounding * _of_pairs(lengths, pairs))


def check_margin(margin: float | None, strategy: str, *, prefix: str = "") -> None:
    """Raise ConfigError unless these are a margin, or None for none, and its strategy."""
    check_choice(f"{prefix}margin_strategy", strategy, MARGIN_STRATEGIES)
    if margin is not None:
        check_number(f"{prefix}margin", margin)
    elif strategy != "absolute":
        raise ConfigError(
            f"{prefix}margin_strategy",
            "has no margin",
            f"set {prefix}margin, to 0.05 say",
            value=strategy,
        )


def filtered_share(
    filtered: Tensor, softmaxes: Sequence[Sequence[Block]], *, num_global: int, num_rows: int
) -> Tensor:
    """Share of the negatives that was filtered, a scalar.

    Args:
        filtered: how many were, over all softmaxes.
        softmaxes: the blocks of each.
        num_global: candidates of a block.
        num_rows: rows of each softmax.
    """
    negatives = sum(
        num_global - spares_own(block, blocks) for blocks in softmaxes for block in blocks
    )
    return filtered / max(num_rows * negatives, 1)


def _of_pairs(ends: Sequence[Tensor], pairs: tuple[Tensor, Tensor] | None) -> Tensor:
    """Dot products of queries with their positives: [G], or [K]."""
    query, positive = ends[:2] if pairs is None else [end[of] for end, of in zip(ends, pairs)]
    return (query * positive).sum(1)


def _threshold(own_G: Tensor, *, margin_strategy: MarginStrategy, margin: float) -> Tensor:
    slack_G = own_G.abs() * margin if margin_strategy == "relative" else margin
    return own_G - slack_G
