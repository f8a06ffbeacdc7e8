"""How far a result is from the same in float64."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from inbatch.doctor.result import Result, judged


class Accuracy(NamedTuple):
    """What a computation may err by, relative to the largest exact number: forward and gradient alike."""

    name: str
    limit: float

    def result(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> Result:
        """Judge pairs of what was found and what is exact."""
        errors = [relative_error(found, exact) for found, exact in pairs]
        error = float(torch.tensor(errors).max())  # nan if one is
        sentence = ""
        if not error <= self.limit:  # nan fails too
            sentence = (
                f"{self.name} errs by {error:.1e} against float64, where {self.limit:.0e} is rounding: "
                "do not train with it on this device, and report it with doctor.json"
            )
        data = {"errors": {self.name: error if error == error else None}}
        return judged(
            self.name, f"error {error:.1e}, at most {self.limit:.0e}", sentence, data=data
        )


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Largest difference over the largest exact number; nan where one is not finite."""
    exact = exact.detach().double().cpu()
    difference = (found.detach().double().cpu() - exact).abs().max()
    return float(difference / exact.abs().max().clamp_min(1e-30))
