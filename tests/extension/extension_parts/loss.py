"""A loss of a user's own: cross-entropy of each query's positive against the positives of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from inbatch.losses import Loss, LossInput, LossOutput, Published


@dataclass(frozen=True)
class PlainInfoNCE(Loss):
    """In-batch cross-entropy of dot products of unit vectors over `temperature`."""

    temperature: float = 0.1
    max_columns: ClassVar[int | None] = 2
    published: ClassVar[Published] = Published("PlainInfoNCE", bibtex="@misc{plain, title={Plain}}")

    def __call__(self, inputs: LossInput) -> LossOutput:
        """The mean over the owned rows."""
        queries, positives = (
            torch.nn.functional.normalize(column, dim=1) for column in inputs.columns
        )
        scores = queries[inputs.rows] @ positives.T / self.temperature
        own = torch.arange(inputs.rows.start, inputs.rows.stop, device=scores.device)
        return LossOutput(torch.nn.functional.cross_entropy(scores, own), {})
