"""Watches the gradient norm of each optimizer step for values that are not finite.

The norm is that of the reduced gradient, so all ranks see the same and decide alike. On a GPU the host does
not wait for it: it is read one step later, before anything is evaluated or saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from inbatch.gather import whole

_SHOWN = 20  # gradients that are named


class Place(NamedTuple):
    """A batch in the run.

    step: optimizer steps up to and with its own.
    batch: number in its epoch.
    source: name of the source of its rows.
    """

    step: int
    batch: int
    source: str


@dataclass
class NonFiniteGradient(Exception):  # noqa: N818 - what it says is in the fields
    """A gradient that is not finite.

    place: of the batch.
    norms: of the gradients by parameter, the worst first; empty where they are gone.
    """

    place: Place
    norms: dict[str, float]


class _Unread(NamedTuple):
    """A norm on its way from the device."""

    norm: Tensor  # on the host
    arrived: torch.cuda.Event
    place: Place


@final
class FiniteWatch:
    """Says whether a step may be taken.

    Args:
        mode: "stop" raises; "skip" leaves the step out, for which a GPU is waited for.
        tolerated: steps in a row whose gradient may be infinite, since a loss scaler leaves them out.
    """

    def __init__(self, mode: Literal["stop", "skip"] = "stop", *, tolerated: int = 0) -> None:
        self.num_skipped = 0
        self._mode = mode
        self._tolerated = tolerated
        self._in_a_row = 0
        self._unread: _Unread | None = None

    def may_step(self, norm: Tensor, gradients: Iterable[tuple[str, Tensor]], place: Place) -> bool:
        """True if the step may be taken, as far as is known.

        Args:
            norm: of the whole gradient, a scalar.
            gradients: by parameter.
            place: of the batch that they come from.

        Raises:
            NonFiniteGradient: this gradient, or on a GPU the one before, is not finite.
        """
        self.settle()
        if norm.is_cuda and self._mode == "stop":
            arrived = torch.cuda.Event()
            self._unread = _Unread(norm.detach().to("cpu", non_blocking=True), arrived, place)
            arrived.record()
            return True
        if math.isfinite(float(norm)):
            self._in_a_row = 0
            return True
        if self._mode == "skip":
            self.num_skipped += 1
            return False
        self._count(place, gradients)
        return True

    def settle(self) -> None:
        """Wait for a norm that is still under way.

        Raises:
            NonFiniteGradient: it is not finite.
        """
        unread, self._unread = self._unread, None
        if unread is None:
            return
        unread.arrived.synchronize()
        if math.isfinite(float(unread.norm)):
            self._in_a_row = 0
        else:
            self._count(unread.place, ())

    def _count(self, place: Place, gradients: Iterable[tuple[str, Tensor]]) -> None:
        self._in_a_row += 1
        if self._in_a_row > self._tolerated:
            raise NonFiniteGradient(place, worst(gradients))


def worst(gradients: Iterable[tuple[str, Tensor]]) -> dict[str, float]:
    """The largest norms by name, those that are not finite first."""
    norms = {name: float(whole(gradient.norm())) for name, gradient in gradients}
    order = sorted(norms, key=lambda name: (math.isfinite(norms[name]), -abs(norms[name])))
    return {name: norms[name] for name in order[:_SHOWN]}
