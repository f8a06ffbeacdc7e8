"""Gathers the contents of the model card from a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Trainer

from inbatch.callbacks.cost import Cost
from inbatch.callbacks.evaluation import Evaluation
from inbatch.config.check import RunConfig
from inbatch.data.report.list_source import read_rows
from inbatch.data.sources.load import Source
from inbatch.encoder import Encoder, build_encoder
from inbatch.evaluation import Evaluator
from inbatch.evaluation.base import ShowsRows, prefix_key
from inbatch.evaluation.metrics import similarities
from inbatch.evaluation.parts import MEAN, HasParts, leaves
from inbatch.export.card import framework_versions
from inbatch.export.card_data import (
    CardData,
    CostCard,
    DatasetName,
    EvaluationCard,
    UsageExample,
    choose_widget,
    has_roles,
)
from inbatch.export.card_header import hub_id
from inbatch.export.git import git_commit
from inbatch.export.model_name import local_name
from inbatch.export.settings import changed, composed_defaults, public
from inbatch.run.callbacks import RunCallbacks
from inbatch.run.card_datasets import dataset_name, evaluation_source_card, source_card
from inbatch.run.module import BiEncoderModule
from inbatch.run.parts import Parts

WIDGET_ROWS = 1000


def make_card(
    run: RunConfig,
    parts: Parts,
    *,
    trainer: Trainer,
    callbacks: RunCallbacks,
    rows: Sequence[Mapping[str, Any]],
    model: Path,
) -> CardData:
    """Everything that the card of a run says.

    Args:
        run, parts: what has run.
        trainer: after `fit`.
        callbacks: of the run.
        rows: of `metrics.jsonl`.
        model: the exported directory, whose encoder computes the scores of the usage example.
    """
    encoder = build_encoder(str(model), trust_remote_code=True)  # this run has written it
    module = cast(BiEncoderModule, trainer.lightning_module)
    settings, base = asdict(run), run.card.base_model or parts.encoder.base_model
    evaluation, summary = callbacks.evaluation, callbacks.summary
    evaluated = {
        key: dataset_name(
            key, run.evaluation.evaluators.get(key, {}).get("path"), run.card.datasets
        )
        for key in parts.evaluators
    }
    texts = [row for source in parts.sources for row in _rows(source, WIDGET_ROWS)]
    return CardData(
        model_name=run.card.model_name or run.name,
        encoder=encoder.describe(),
        base_model=None if base == run.card.base_model and hub_id(base) is None else base,
        base_name=None if base is None else local_name(base),
        sources=[
            source_card(
                source,
                encoder,
                parts.losses[source.name],
                guide=run.guide.model,
                name=dataset_name(source.name, run.data.train.get(source.name), run.card.datasets),
                learned=module.loss_parameters.held(source.name),
            )
            for source in parts.sources
        ],
        evaluation_sources=[
            evaluation_source_card(evaluator.evaluated_rows(), encoder, name=evaluated[key])
            for key, evaluator in parts.evaluators.items()
            if isinstance(evaluator, ShowsRows)
        ],
        hyperparameters=public(settings),
        non_default_hyperparameters=public(
            changed(settings, {**asdict(RunConfig()), **composed_defaults()})
        ),
        training_log=rows,
        evaluations=_evaluation_cards(parts.evaluators, evaluation, evaluated),
        best_step=None if evaluation is None else evaluation.best_step,
        versions=framework_versions(),
        training_time_s=summary.training_s,
        evaluation_time_s=summary.evaluation_s if parts.evaluators else None,
        hardware=_hardware(trainer.strategy.root_device),
        world_size=trainer.world_size,
        strategy=type(parts.strategy).__name__,
        precision=run.precision,
        global_batch_size=run.global_batch_size,
        gradient_caching=run.gradcache.keep_gib is not None,
        language=run.card.language,
        license=run.card.license,
        tags=run.card.tags,
        widget=choose_widget(texts),
        usage=_usage(encoder, parts.sources[0]),
        code_version=git_commit(),
        cost=_cost(callbacks.cost.cost, evaluation),
    )


def _rows(source: Source, limit: int) -> list[tuple[str, ...]]:
    """The first rows: query, a positive, negatives."""
    rows = np.arange(min(limit, source.num_rows))
    if source.ragged is not None:
        texts = read_rows(source.ragged, rows)
        return [(row.query, row.positives[0], *row.negatives) for row in texts]
    columns, _ = source.read(rows)
    return list(zip(*columns, strict=True))


def _evaluation_cards(
    evaluators: Mapping[str, Evaluator],
    evaluation: Evaluation | None,
    evaluated: Mapping[str, DatasetName],
) -> list[EvaluationCard]:
    if evaluation is None:
        return []
    best, before = evaluation.best or evaluation.last, evaluation.first
    cards = []
    for key, evaluator in evaluators.items():
        units: list[tuple[Evaluator, str, DatasetName]] = [
            (leaf, leaf.name, DatasetName(leaf.name)) for leaf in leaves([evaluator])
        ]
        if not isinstance(evaluator, HasParts):
            units = [(evaluator, evaluator.name, evaluated[key])]
        else:
            units.append((evaluator, prefix_key(evaluator.name, MEAN), evaluated[key]))
        for one, name, dataset in units:
            prefix = f"{name}_" if name else ""
            cards.append(
                EvaluationCard(
                    evaluator=type(one).__name__,
                    description=one.description,
                    name=name,
                    metrics={k: v for k, v in best.items() if k.startswith(prefix)},
                    before={k: v for k, v in before.items() if k.startswith(prefix)} or None,
                    primary_metric=one.primary_metric,
                    dataset=dataset,
                )
            )
    return cards


def _cost(cost: Cost, evaluation: Evaluation | None) -> CostCard:
    spent = asdict(cost)
    if evaluation is None:
        return CostCard(**spent)
    metric, best = evaluation.best_metric, evaluation.best or evaluation.last
    return CostCard(
        **spent, metric=metric, value=best.get(metric), before=evaluation.first.get(metric)
    )


def _usage(encoder: Encoder, source: Source) -> UsageExample:
    rows = _rows(source, 3)
    query, documents = rows[0][0], [row[1] for row in rows if len(row) > 1]
    if not documents:  # rows of one text
        documents = [row[0] for row in rows[1:]] or [query]
    if has_roles(encoder.describe()):
        left, right = (
            encoder.encode([query], role="query"),
            encoder.encode(documents, role="document"),
        )
    else:
        left = right = encoder.encode([query, *documents])
    scores = similarities(left, right, encoder.similarity)
    return UsageExample(queries=[query], documents=documents, similarities=scores.tolist())


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)} per rank"
