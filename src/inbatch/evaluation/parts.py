"""Evaluators of several sets, each of which has an evaluator of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from inbatch.errors import ConfigError
from inbatch.evaluation.base import Evaluator, prefix_key

MEAN = "mean"  # over several sets, in names of metrics


@runtime_checkable
class HasParts(Protocol):
    """An evaluator of several sets, each with its own evaluator."""

    @property
    def evaluators(self) -> Sequence[Evaluator]:
        """Of the sets."""

    def joined(self, found: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Metrics of all sets, of those that each of `evaluators` returns: what a call returns."""


def leaves(evaluators: Iterable[Evaluator]) -> list[Evaluator]:
    """The evaluators of single sets among evaluators."""
    found: list[Evaluator] = []
    for evaluator in evaluators:
        inner = isinstance(evaluator, HasParts)
        found += leaves(evaluator.evaluators) if inner else [evaluator]  # type: ignore[attr-defined]
    return found


def names_of(evaluator: Evaluator) -> list[str]:
    """The names that keys of an evaluator's metrics begin with."""
    own = [leaf.name for leaf in leaves([evaluator])]
    if isinstance(evaluator, HasParts):
        own.append(prefix_key(evaluator.name, MEAN))
    return own


def check_names(evaluators: Iterable[Evaluator]) -> None:
    """Refuse evaluators whose metrics would have the same keys.

    Raises:
        ConfigError: two of one kind have the same name.
    """
    seen: set[tuple[type, str]] = set()
    for leaf in leaves(evaluators):
        if (type(leaf), leaf.name) in seen:
            raise ConfigError(
                "evaluation.evaluators",
                f"has two of one kind named {leaf.name!r}, whose metrics would have the same keys",
                "give each its own name",
            )
        seen.add((type(leaf), leaf.name))
