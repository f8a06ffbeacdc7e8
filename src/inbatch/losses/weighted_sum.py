"""A weighted sum of losses, as one loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from inbatch.errors import ConfigError
from inbatch.losses.base import Loss, LossInput, LossOutput, LossParameter
from inbatch.losses.checks import check_inputs, check_number
from inbatch.losses.one_sweep import agreeing, contrastive_and_divergence


@dataclass(frozen=True)
class WeightedSum(Loss):
    """``sum_k weights[k] * losses[k]``, of losses that all see the same rows.

    It needs what its parts need (labels, scores, the guide, which they share) and takes what all of them
    take.
    `MultipleNegativesRanking` and `InBatchKL` that agree in temperature, similarity and directions are
    computed in one sweep over the scores, see `one_sweep`; the value is the same. Metrics have the name of
    their part in front (``MultipleNegativesRanking/positive_similarity``), and each part's value is
    ``MultipleNegativesRanking/loss``, before its weight; a class that is there twice has numbers.
    """

    losses: Sequence[Loss]
    weights: Sequence[float] | None = None  # above 0; None for 1 each

    def __post_init__(self) -> None:
        losses, weights = tuple(self.losses), self.weights
        weights = (1.0,) * len(losses) if weights is None else tuple(weights)
        if not losses:
            raise ConfigError("losses", "is empty", "list at least one loss", value=[])
        if len(weights) != len(losses):
            raise ConfigError(
                "weights",
                f"has {len(weights)} entries for {len(losses)} losses",
                "give one for each",
            )
        for weight in weights:
            check_number("weights", weight, above=0)
        _check_labels(losses)
        object.__setattr__(self, "losses", losses)
        object.__setattr__(self, "weights", weights)

    @property
    def scope(self) -> Literal["row", "candidates", "global"]:
        """ "candidates" if a part has it, else "global" if one has that: the value of the global batch, the
        same on every rank, is a mean over the owned rows too."""
        scopes = {loss.scope for loss in self.losses}
        return "candidates" if "candidates" in scopes else "global" if "global" in scopes else "row"

    @property
    def ignores_lengths(self) -> bool:
        """True if it is of all parts."""
        return all(loss.ignores_lengths for loss in self.losses)

    @property
    def needs_labels(self) -> bool:
        """True if it is of a part."""
        return any(loss.needs_labels for loss in self.losses)

    @property
    def takes_labels(self) -> bool:
        """True if it is of a part."""
        return any(loss.takes_labels for loss in self.losses)

    @property
    def label_range(self) -> tuple[float, float] | None:
        """What all parts take."""
        ranges = [loss.label_range for loss in self.losses if loss.label_range is not None]
        if not ranges:
            return None
        return max(low for low, _ in ranges), min(high for _, high in ranges)

    @property
    def labels_are_classes(self) -> bool:
        """True if it is of a part."""
        return any(loss.labels_are_classes for loss in self.losses)

    @property
    def needs_guide(self) -> bool:
        """True if it is of a part."""
        return any(loss.needs_guide for loss in self.losses)

    @property
    def filters_by_guide(self) -> bool:
        """True if it is of all parts that see other rows."""
        others = [loss for loss in self.losses if loss.scope == "candidates"]
        return bool(others) and all(loss.filters_by_guide for loss in others)

    @property
    def needs_text_ids(self) -> bool:
        """True if it is of a part."""
        return any(loss.needs_text_ids for loss in self.losses)

    @property
    def needs_scores(self) -> bool:
        """True if it is of a part."""
        return any(loss.needs_scores for loss in self.losses)

    @property
    def takes_lists(self) -> bool:
        """True if it is of all parts."""
        return all(loss.takes_lists for loss in self.losses)

    @property
    def takes_ring(self) -> bool:
        """True if it is of all parts that see other rows; none of them may need the whole batch."""
        others = [loss for loss in self.losses if loss.scope != "row"]
        return all(loss.scope == "candidates" and loss.takes_ring for loss in others)

    @property
    def min_columns(self) -> int:
        """The most that a part needs."""
        return max(loss.min_columns for loss in self.losses)

    @property
    def min_columns_of_lists(self) -> int:
        """The most that a part needs."""
        return max(loss.min_columns_of_lists for loss in self.losses)

    @property
    def max_columns(self) -> int | None:
        """The fewest that a part takes."""
        return min((m for loss in self.losses if (m := loss.max_columns) is not None), default=None)

    def parameters(self, *, dim: int, guide_dim: int | None) -> Mapping[str, LossParameter]:
        """Those of the parts, each with the name of its part in front as in metrics."""
        return {
            f"{part}/{name}": parameter
            for part, loss in zip(self._names(), self.losses)
            for name, parameter in loss.parameters(dim=dim, guide_dim=guide_dim).items()
        }

    def _inputs(self, number: int, inputs: LossInput) -> LossInput:
        """What a part sees: parameters by its own names."""
        part = self._names()[number] + "/"
        own = {
            name.removeprefix(part): value
            for name, value in inputs.parameters.items()
            if name.startswith(part)
        }
        return replace(inputs, parameters=own)

    def nested(self) -> Iterator[Loss]:
        """With the parts, and what is inside these."""
        yield self
        for loss in self.losses:
            yield from loss.nested()

    def settled(self, *, lists: bool) -> Loss:
        """With its parts settled."""
        return replace(self, losses=[loss.settled(lists=lists) for loss in self.losses])

    def __call__(self, inputs: LossInput) -> LossOutput:
        """The sum. Raises ConfigError for what a part refuses."""
        check_inputs(self, inputs)
        assert self.weights is not None
        terms: list[Tensor] = []
        outputs: dict[int, LossOutput] = {}
        if (pair := agreeing(self.losses, inputs)) is not None:
            weights = [self.weights[number] for number in pair.numbers]
            term, both = contrastive_and_divergence(pair, inputs, weights)
            terms.append(term)
            outputs |= dict(zip(pair.numbers, both))
        for number, loss in enumerate(self.losses):
            if number not in outputs:
                outputs[number] = loss(self._inputs(number, inputs))
                terms.append(self.weights[number] * outputs[number].loss)
        metrics: dict[str, Tensor] = {}
        for number, name in enumerate(self._names()):
            values = {"loss": outputs[number].loss.detach(), **outputs[number].metrics}
            metrics |= {f"{name}/{key}": value for key, value in values.items()}
        return LossOutput(torch.stack(terms).sum(), metrics)

    def _names(self) -> list[str]:
        """Of the parts in metrics, in their order."""
        names = [type(loss).__name__ for loss in self.losses]
        return [
            name if names.count(name) == 1 else f"{name}_{names[: number + 1].count(name)}"
            for number, name in enumerate(names)
        ]


def _check_labels(losses: Sequence[Loss]) -> None:
    """Raise ConfigError if some parts take the labels for classes and others for scores."""
    classes = [type(loss).__name__ for loss in losses if loss.labels_are_classes]
    scores = [
        type(loss).__name__ for loss in losses if loss.takes_labels and not loss.labels_are_classes
    ]
    if classes and scores:
        raise ConfigError(
            "losses",
            f"has {classes[0]}, to which labels are classes, beside {scores[0]}, to which they are scores",
            "leave out one of them",
            value=[type(loss).__name__ for loss in losses],
        )
