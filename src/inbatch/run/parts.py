"""The parts that a run is made of, and those that a Python program hands in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import datasets

from inbatch.data.plan.plan import Sampler
from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder
from inbatch.evaluation import Evaluator
from inbatch.guide import Guide
from inbatch.losses.base import Loss
from inbatch.strategies import Strategy


@dataclass(frozen=True, kw_only=True)
class OwnObjects:
    """Objects that a Python program hands in; each stands in for the part of that name in the configuration.

    tables: rows in memory, by the name of their training source.
    evaluators: by name.
    loss: one for all sources, or one for each source name.
    """

    tables: Mapping[str, datasets.Dataset] = field(default_factory=dict)
    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)
    encoder: Encoder | None = None
    loss: Loss | Mapping[str, Loss] | None = None
    sampler: Sampler | None = None


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a run.

    batch_sizes: rows of a global batch, by source.
    losses: by source name.
    """

    sources: Sequence[Source]
    batch_sizes: Mapping[str, int]
    evaluators: Mapping[str, Evaluator]
    encoder: Encoder
    losses: Mapping[str, Loss]
    sampler: Sampler
    guide: Guide | None
    strategy: Strategy


def parameters_of(loss: Loss) -> dict[str, Any]:
    """The hyperparameters of a loss by name, losses inside it as {class: theirs}.

    Empty for a class that is not a dataclass.
    """
    if not is_dataclass(loss) or isinstance(loss, type):
        return {}
    return {each.name: _shown(getattr(loss, each.name)) for each in fields(loss)}


def _shown(value: Any) -> Any:
    if isinstance(value, Loss):
        return {type(value).__name__: parameters_of(value)}
    return [*map(_shown, value)] if isinstance(value, list | tuple) else value
