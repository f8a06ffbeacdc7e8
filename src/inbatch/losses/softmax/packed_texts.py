"""Rows of scored texts as the tensors that travel between ranks. Shape letters: Q rows, C columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inbatch.losses.softmax.pairing import Pairing, ScoredTexts, pair
from inbatch.losses.softmax.products import Factor, split_factor


def pack_texts(texts: ScoredTexts) -> list[Tensor]:
    """All that scores need of some rows, each [C, Q, ...]."""
    packed = []
    for factors in (texts.columns, texts.guide or ()):
        if factors:
            kept = [f.values if f.parts is None else f.parts for f in factors]
            packed.append(torch.stack(kept))
            scales = [factor.scale for factor in factors if factor.scale is not None]
            packed += [torch.stack(scales)] if scales else []
    return packed if texts.ids is None else [*packed, torch.stack(list(texts.ids))]


def paired(own: ScoredTexts, tensors: Sequence[Tensor], *, is_own: bool) -> Pairing:
    """The own rows beside those that are here."""
    return pair(own, _unpack(own, tensors), own=is_own)


def _unpack(like: ScoredTexts, tensors: Sequence[Tensor]) -> ScoredTexts:
    """What came of `pack_texts`."""
    left = iter(tensors)

    def factors(like: Sequence[Factor]) -> list[Factor]:
        values = next(left).unbind(0)
        scales = (None,) * len(values) if like[0].scale is None else next(left).unbind(0)
        make = Factor if like[0].parts is None else split_factor
        return [make(*pair) for pair in zip(values, scales)]

    columns = factors(like.columns)
    guide = None if like.guide is None else factors(like.guide)
    return ScoredTexts(columns, guide, None if like.ids is None else next(left).unbind(0))
