"""Losses that a strategy cannot tell apart, and one of each family for tests where a step is dear.

Between a loss and the parameters stand the gather, the gradient cache and the strategy. What a loss computes
is seen by the first two, which are the same under all strategies; a strategy averages gradients, and takes
no other way than what a `Family` has. So every loss runs under DDP and on one device, and one of each
family under FSDP and a stage of DeepSpeed; its other stages differ in what they shard, hence one of each
kind of what is `trained` runs under them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

from inbatch.losses.base import Loss


class Family(NamedTuple):
    """What of a loss reaches a strategy."""

    scope: str  # whether gradients of other ranks' rows come in, and of one value or of a mean
    in_ring: bool  # whether they may come hop by hop
    trains: bool  # parameters of its own, which are wrapped and sharded apart from the encoder's
    bounded: bool  # these are clamped after a step


def family(loss: Loss) -> Family:
    """That of a loss."""
    parameters = loss.parameters(dim=32, guide_dim=32).values()
    return Family(
        loss.scope,
        loss.scope == "candidates" and loss.takes_ring,
        bool(parameters),
        any(parameter.most is not None for parameter in parameters),
    )


def trained(loss: Loss) -> tuple[bool, bool]:
    """Whether it has parameters, and whether these are bounded."""
    return family(loss)[2:]


def one_of_each(
    losses: Mapping[str, Loss], told_apart: Callable[[Loss], Hashable] = family
) -> dict[str, Loss]:
    """The last loss of each family, which are those with the most options."""
    last = {told_apart(loss): name for name, loss in losses.items()}
    return {name: losses[name] for name in last.values()}
