"""The YAML header of a card: tags, widget and results, as the hub and its tools read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from inbatch.export import markdown as md
from inbatch.export.card_data import CardData, DatasetName, EvaluationCard
from inbatch.export.card_sections import short_metrics
from inbatch.export.citations import loss_name
from inbatch.export.metrics_log import is_finite

_TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction", "dense")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def header(card: CardData) -> ModelCardData:
    """The metadata of the card, as `huggingface_hub.ModelCard` reads it back."""
    size = sum(source.size for source in card.sources)
    losses = train_losses(card)
    tags = [*_TAGS, "generated_from_trainer" if card.merge is None else "merge", "inbatch"]
    tags += [f"dataset_size:{size}"] if size else []
    tags += [f"loss:{loss}" for loss in losses]
    on_hub = [s.hub_id for s in (*card.sources, *card.evaluation_sources) if s.hub_id]
    keys = [key for evaluation in card.evaluations for key in short_metrics(evaluation)]
    widget: list[dict[str, Any]] = [
        {
            "source_sentence": md.clean(example.source_sentence),
            "sentences": [md.clean(text) for text in example.sentences],
        }
        for example in card.widget
    ]
    return ModelCardData(
        language=list(card.language) or None,
        license=card.license,
        base_model=hub_id(card.base_model) or _merged_from(card),
        datasets=list(dict.fromkeys(on_hub)) or None,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=list(dict.fromkeys([*tags, *card.tags])),
        metrics=list(dict.fromkeys(keys)) or None,
        model_name=md.clean(card.model_name),
        eval_results=_eval_results(card) or None,
        widget=widget or None,
    )


def hub_id(name: str | None) -> str | None:
    """`name` where it can be a model on the hub, None for files on this machine."""
    if name is None or not _HUB_ID.fullmatch(name) or Path(name).exists():
        return None
    return name


def _merged_from(card: CardData) -> list[str] | None:
    """The models on the hub that a merged one is made of."""
    models = () if card.merge is None else card.merge.models
    return [
        each.name for each in models if each.share and "/" in each.name and hub_id(each.name)
    ] or None


def train_losses(card: CardData) -> list[str]:
    """Names of the losses that the model was trained with."""
    names = [
        loss_name(source.loss, part, cached=card.gradient_caching)
        for source in card.sources
        if source.loss
        for part in (source.published, *source.cited)
        if part is source.published or (part is not None and part.name is not None)
    ]
    return list(dict.fromkeys(names))


def _eval_results(card: CardData) -> list[EvalResult]:
    """Final metrics for the model index, which holds finite numbers only."""
    return [
        EvalResult(
            task_type=evaluation.description.lower().replace(" ", "-"),
            task_name=evaluation.description,
            dataset_type=_dataset(evaluation).hub_id or evaluation.name or "unknown",
            dataset_name=_dataset(evaluation).title or "Unknown",
            metric_type=key,
            metric_name=key.replace("_", " ").title(),
            metric_value=float(value),
        )
        for evaluation in card.evaluations
        for key, value in short_metrics(evaluation).items()
        if is_finite(value)
    ]


def _dataset(evaluation: EvaluationCard) -> DatasetName:
    return evaluation.dataset or DatasetName(re.sub("[_-]", " ", evaluation.name))
