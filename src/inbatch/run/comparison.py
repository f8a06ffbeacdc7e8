"""Several models on the same sets: values, intervals, and differences to the first.

One model at a time is in memory. Of each there stay its metrics, and `resamples` numbers for each column.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from inbatch.callbacks.encode import Place
from inbatch.config.judging import CompareConfig
from inbatch.errors import ConfigError
from inbatch.evaluation import Evaluator
from inbatch.evaluation.base import KeepsRows, prefix_key
from inbatch.evaluation.bootstrap import Interval, draw, interval
from inbatch.evaluation.metrics import SIMILARITIES
from inbatch.evaluation.parts import MEAN, HasParts, leaves
from inbatch.evaluation.views import View, evaluate_views, views_of
from inbatch.gather import largest
from inbatch.run.judging import model_of, ready_to_judge

NO_DRAWS = np.empty(0)


@dataclass(frozen=True, slots=True)
class Judged:
    """One model.

    metrics: all of its evaluators.
    values, draws: of each column, [B]; no draws where the set's evaluator keeps no rows.
    """

    metrics: dict[str, float]
    values: dict[str, float] = field(default_factory=dict)
    draws: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    """A model in a column.

    value, of: the metric and its interval.
    difference, between: to the first model; None for that itself.
    """

    value: float
    of: Interval
    difference: float | None
    between: Interval | None

    @property
    def told_apart(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        return self.between is not None and self.between.leaves_out_zero


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it.

    cells: {column: {model: cell}}; a column is the metric of a set, or a mean over sets.
    metrics: {model: all metrics}.
    errors: {model: why it has none}.
    """

    cells: dict[str, dict[str, Cell]]
    metrics: dict[str, dict[str, float]]
    errors: dict[str, str]


def compare_models(
    run: CompareConfig, evaluators: Sequence[Evaluator], *, place: Place
) -> Comparison:
    """Judge each model, on all ranks together.

    A model that cannot be loaded or judged is left out, with the reason; all differences are to the first,
    so that one must not fail.

    Raises:
        ConfigError: the first model cannot be judged, or none of the others can.
    """
    views = views_of(run.evaluation.truncate_dims, run.evaluation.quantisations)
    judged: dict[str, Judged] = {}
    errors: dict[str, str] = {}
    for name, path in run.models.items():
        try:
            judged[name] = _judge(run, name, path, evaluators, views, place=place)
        except ConfigError as error:
            if not judged:
                raise
            errors[name] = str(error)
        gc.collect()
        if place.device.type == "cuda":
            torch.cuda.empty_cache()
    if len(judged) < 2:
        raise ConfigError(
            "models",
            f"leave nothing to compare ({'; '.join(errors.values())})",
            "correct them",
            value=list(errors),
        )
    return Comparison(
        _cells(judged, run.confidence),
        {name: each.metrics for name, each in judged.items()},
        errors,
    )


def _judge(
    run: CompareConfig,
    name: str,
    path: str,
    evaluators: Sequence[Evaluator],
    views: Sequence[View],
    *,
    place: Place,
) -> Judged:
    """One model; what it needs of memory is free afterwards."""
    encode, problem = None, None
    node = {**run.encoder, "model": model_of(path)}
    try:
        _, encode = ready_to_judge(
            node, evaluators, views, place=place, chunk_tokens=run.chunk_tokens
        )
    except ConfigError as error:
        problem = error.under(f"models.{name}") if error.key == "encoder.model" else error
    if largest(int(problem is not None), place.device) or encode is None:  # on any rank
        raise problem or ConfigError(f"models.{name}", "fails on another rank", "see its message")
    judged = Judged({})

    def keep(evaluator: Evaluator, view: View, found: Mapping[str, float]) -> None:
        _keep(judged, run, evaluators, evaluator, view, found)

    folder = Path(run.output_dir) / f"embeddings.{place.rank}"
    judged.metrics.update(evaluate_views(evaluators, encode, views, folder, judged=keep))
    wrong = [column for column, value in judged.values.items() if math.isnan(value)]
    if wrong:
        raise ConfigError(
            f"models.{name}",
            f"has no value of {wrong[0]}, as where embeddings are not finite",
            "leave it out",
            value=path,
        )
    if len(leaves(evaluators)) > 1 and len(evaluators) > 1:
        for view in views:
            columns = [_column(leaf, view) for leaf in leaves(evaluators)]
            _add_mean(judged, prefix_key(MEAN, view.label) if view.label else MEAN, columns)
    return judged


def _keep(
    judged: Judged,
    run: CompareConfig,
    evaluators: Sequence[Evaluator],
    evaluator: Evaluator,
    view: View,
    found: Mapping[str, float],
) -> None:
    """Add the column of a set, or of the mean over those of a collection, to those of a model."""
    if isinstance(evaluator, HasParts):
        own = leaves([evaluator])
        mean = "_".join(filter(None, (evaluator.name, MEAN, view.label, _kind(own[0]))))
        _add_mean(judged, mean, [_column(leaf, view) for leaf in own])
        return
    column = _column(evaluator, view)
    judged.values[column] = found[evaluator.primary_metric]
    sample = evaluator.sample() if isinstance(evaluator, KeepsRows) else None
    if sample is not None:
        order = leaves(evaluators)
        seed = (run.seed, order.index(evaluator))  # the same rows for all models and views
        judged.draws[column] = draw(sample, resamples=run.resamples, seed=seed)


def _add_mean(judged: Judged, name: str, columns: Sequence[str]) -> None:
    """The mean over sets, each with rows drawn by themselves."""
    judged.values[name] = float(np.mean([judged.values[column] for column in columns]))
    draws = [judged.draws.get(column, NO_DRAWS) for column in columns]
    if all(len(each) for each in draws):
        judged.draws[name] = np.mean(draws, axis=0)


def _column(leaf: Evaluator, view: View) -> str:
    """A set's metric without the similarity, which is each model's own."""
    return "_".join(filter(None, (leaf.name, view.label, _kind(leaf))))


def _kind(leaf: Evaluator) -> str:
    key = leaf.primary_metric.removeprefix(f"{leaf.name}_")
    parts = [part for part in key.split("_") if part not in (*SIMILARITIES, "max")]
    return "_".join(parts)


def _cells(judged: Mapping[str, Judged], confidence: float) -> dict[str, dict[str, Cell]]:
    first = next(iter(judged.values()))
    cells: dict[str, dict[str, Cell]] = {}
    for column, value in first.values.items():
        base = first.draws.get(column, NO_DRAWS)
        cells[column] = {}
        for name, model in judged.items():
            draws = model.draws.get(column, NO_DRAWS)
            of = interval(draws, confidence=confidence)
            if model is first:
                cells[column][name] = Cell(value, of, None, None)
                continue
            paired = draws - base if len(draws) == len(base) else NO_DRAWS
            between = interval(paired, confidence=confidence)
            own = model.values[column]
            cells[column][name] = Cell(own, of, own - value, between)
    return cells
