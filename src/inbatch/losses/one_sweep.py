"""A contrastive loss and a divergence from a teacher in one sweep over the scores that both are made of.

Their gradients with respect to a logit are ``v (q - y)`` and ``w (q - p)`` for weights v and w, the positive
y, the student's distribution q and the teacher's p; together ``(v + w) (q - y')`` with the soft target
``y' = (v y + w p) / (v + w)``. So the student's scores and the two products of the gradient are computed
once: 3 D + E products an entry (dimensions D and E of student and teacher) instead of 6 D + E.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from inbatch.losses.base import Loss, LossInput, LossOutput
from inbatch.losses.in_batch_kl import InBatchKL
from inbatch.losses.multiple_negatives import MultipleNegativesRanking
from inbatch.losses.softmax.cross_entropy import similarity_metrics
from inbatch.losses.softmax.walk import StreamStats


class AgreeingPair(NamedTuple):
    """Two losses over the same scores."""

    divergence: InBatchKL
    numbers: tuple[int, int]  # of the contrastive loss and of the divergence among the losses


def agreeing(losses: Sequence[Loss], inputs: LossInput) -> AgreeingPair | None:
    """The losses that one sweep computes, if there are two.

    Rows with lists have none: their positives make softmaxes of their own.
    """
    if inputs.documents is not None:
        return None
    for first, contrastive in enumerate(losses):
        for second, divergence in enumerate(losses):
            if (
                isinstance(contrastive, MultipleNegativesRanking)
                and isinstance(divergence, InBatchKL)
                and _agree(contrastive, divergence)
            ):
                return AgreeingPair(divergence, (first, second))
    return None


def _agree(contrastive: MultipleNegativesRanking, divergence: InBatchKL) -> bool:
    """Whether the softmax of one is the student's of the other: one temperature, and nothing masked."""
    same = MultipleNegativesRanking(
        temperature=divergence.student_temperature,
        similarity=divergence.similarity,
        directions=divergence.directions,
    )
    # A row in columns has one positive, and is masked only if it is asked for.
    plain = replace(
        contrastive,
        directions=divergence.directions
        if set(contrastive.directions) == set(divergence.directions)
        else contrastive.directions,
        positive_form=same.positive_form,
        mask_duplicates=contrastive.mask_duplicates or None,
        implementation="auto"
        if contrastive.implementation == "tiled"
        else contrastive.implementation,
    )
    return plain == same


def contrastive_and_divergence(
    pair: AgreeingPair, inputs: LossInput, weights: Sequence[float]
) -> tuple[Tensor, tuple[LossOutput, LossOutput]]:
    """The weighted sum of both losses, and each of them without gradient.

    Args:
        pair: what is to be computed.
        inputs: of both.
        weights: of the contrastive loss and of the divergence, above 0.
    """
    total = weights[0] + weights[1]
    loss, stats = pair.divergence.sweep(inputs, share=weights[1] / total)
    temperature = pair.divergence.student_temperature
    scores = StreamStats(
        stats.own * temperature, stats.hardest * temperature, stats.own.new_zeros(())
    )
    contrastive = LossOutput(stats.contrastive.mean(), similarity_metrics(scores))
    divergence = LossOutput(stats.divergence.mean(), pair.divergence.metrics(stats))
    return total * loss, (contrastive, divergence)
