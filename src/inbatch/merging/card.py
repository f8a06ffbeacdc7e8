"""The model card of a merged model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from inbatch.encoder import build_encoder
from inbatch.evaluation import Evaluator
from inbatch.export.card import framework_versions
from inbatch.export.card_data import CardData, EvaluationCard, MergeCard, MergedModel
from inbatch.merging.judge import Metrics
from inbatch.merging.merge import Merged, Method


def make_card(
    merged: Merged, model: Path, *, name: str, method: Method, evaluators: Mapping[str, Evaluator]
) -> CardData:
    """Everything that the card of a merged model says.

    Args:
        merged: what was merged.
        model: the written directory.
        name: of the model.
        method: of merging.
        evaluators: that have measured it.
    """

    def value(metrics: Metrics) -> float | None:
        found = metrics.get(merged.metric or "", math.nan)
        return None if math.isnan(found) else found

    shares = zip(merged.ingredients, merged.shares, merged.each, strict=True)
    return CardData(
        model_name=name,
        encoder=build_encoder(str(model)).describe(),
        sources=(),
        evaluations=[
            EvaluationCard(
                evaluator=type(evaluator).__name__,
                description=evaluator.description,
                name=evaluator.name,
                metrics={
                    key: found
                    for key, found in merged.metrics.items()
                    if not evaluator.name or key.startswith(f"{evaluator.name}_")
                },
                primary_metric=evaluator.primary_metric,
            )
            for evaluator in evaluators.values()
        ],
        versions=framework_versions(),
        merge=MergeCard(
            method=method,
            models=[
                MergedModel(name=each.label, share=share, value=value(metrics))
                for each, share, metrics in shares
            ],
            metric=merged.metric,
            value=value(merged.metrics),
            notes=merged.notes,
        ),
    )
