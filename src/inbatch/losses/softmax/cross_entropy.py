"""The engine under every in-batch loss: softmax cross-entropy whose score matrix is never held.

A loss names *blocks*: queries against positives, queries against queries, and so on. Row i of the
loss is the cross-entropy of one softmax over all blocks side by side, with the query's own positive
as the target. The walk goes over panels of some hundred rows: one matrix product a block fills
the panel with logits, the guide's mask and the softmax are applied in place, and two more products
turn it into gradients, which accumulate. A panel holds *all* candidates of its rows, so that each
softmax is complete at once: no online rescaling, and no second pass in backward, which would repeat
the products of embeddings and of guide (a third of all arithmetic). The price: gradients, of the
size of the embeddings, are computed in forward and wait. The loss is a mean; backward scales them.

Memory beyond inputs and outputs: one panel (`panel_bytes`), the guide's scores and the weights of one
block of it, and the columns as they are multiplied while forward runs. Nothing grows with the square of
the batch. The parts:

- `products`: in what form columns are multiplied, and how exact that is.
- `torch_panels`, `triton_panels`: what is done to a panel between its products, by torch on any device, or
  in fewer passes by Triton kernels on CUDA.
- `gathered`, `ring`: the walk where a rank holds all candidates, and where none does.

Shape letters: G global rows, Q rows this rank owns, R rows of a panel, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inbatch.losses.base import Ring
from inbatch.losses.softmax.gathered import gathered_cross_entropy
from inbatch.losses.softmax.implementation import Implementation, choose_arithmetic
from inbatch.losses.softmax.panels import Block, GuideFilter, SoftmaxSpec
from inbatch.losses.softmax.ring import ring_cross_entropy
from inbatch.losses.softmax.walk import StreamStats


def streamed_cross_entropy(
    columns: Sequence[Tensor],
    blocks: Sequence[Block],
    *,
    rows: slice,
    temperature: float | Tensor,
    normalize: bool = True,
    hardness_strength: float = 0.0,
    guide: GuideFilter | None = None,
    text_ids: Sequence[Tensor] | None = None,
    panel_bytes: int | None = None,
    panel_halvings: int = 0,
    implementation: Implementation = "auto",
    ring: Ring | None = None,
    exact_in: torch.dtype | None = None,
    mixed: bool = False,
) -> tuple[Tensor, StreamStats]:
    """Mean over the owned rows of ``logsumexp(logits of all blocks) - logit of the own positive``.

    A logit is a score over `temperature`; a score is the cosine of two embeddings, or their dot
    product where `normalize` is False. As exact as in float32 (float64 if a column is), whatever the
    dtype of the columns and whether or not autocast is on; gradients have the columns' dtype, and on a GPU
    the digits of 16 bits where columns have no more or `mixed` is said, see `products`.

    Args:
        columns: each [G, D], the embeddings of the global batch.
        blocks: what goes into the softmax; exactly one has ``own="positive"``.
        rows: rows of the global batch to average over, ``0 <= start < stop <= G``.
        temperature: positive divisor of the scores; a scalar tensor gets a gradient too, for no more products
            and without a wait for the device.
        normalize: bring embeddings to unit length; the gradient passes through.
        hardness_strength: strength for the blocks' hardened entries.
        guide: mask of false negatives; it never removes a row's own positive.
        text_ids: int64 [G] of each column. Known positives are left out: texts of other rows that equal a
            row's query or positive, and query and positive of rows that share a text with it.
        panel_bytes: memory of a panel of logits, of `MIN_PANEL_ROWS` at least; None takes the default
            of the device.
        panel_halvings: how often the rows of a panel are halved after that, down to a single one.
        implementation: "tiled" is torch's operations, for any device and dtype; "triton" kernels for CUDA and
            anything but float64; "auto" takes the kernels where a trial on the device has gone well.
        ring: where each rank holds its own rows only: the way to those of all others. Then all tensors are of
            the own rows, and `rows` is all of them.
        exact_in: a 16-bit type that holds the columns' values exactly, whatever their type; None for none.
        mixed: the encoder computes in 16 bits, so that gradients need no more digits.

    Returns:
        The loss, a scalar that can be differentiated once, and detached statistics.

    """
    if sum(block.own == "positive" for block in blocks) != 1:
        raise ValueError("exactly one block of a softmax holds the positive")
    spec = SoftmaxSpec(
        tuple(blocks),
        rows,
        temperature,
        normalize,
        hardness_strength,
        guide,
        text_ids,
        panel_bytes,
        panel_halvings,
        exact_in,
        mixed,
    )
    if isinstance(temperature, Tensor) and hardness_strength:
        if implementation == "triton":
            raise ValueError("kernels take the factor of hardened logits from the host")
        implementation = "tiled"
    arithmetic = choose_arithmetic(implementation, columns, guide)
    if ring is not None:
        return ring_cross_entropy(spec, columns, arithmetic, ring)
    return gathered_cross_entropy(spec, columns, arithmetic)


def similarity_metrics(stats: StreamStats) -> dict[str, Tensor]:
    """Means over the owned rows; rows without a kept negative do not count for the hardest one."""
    kept_Q = stats.hardest.isfinite()
    hardest = torch.where(kept_Q, stats.hardest, 0).sum() / kept_Q.sum()
    return {"positive_similarity": stats.positive.mean(), "hardest_negative_similarity": hardest}
