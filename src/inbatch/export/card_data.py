"""The data of a model card: plain values, no torch and no model.

The run gathers these once, after training; `card.render` turns them into text. Helpers that choose
what to show (`column_stats`, `choose_widget`) stand here too, so that every card chooses alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from inbatch.losses import Published

MAX_SHOWN_TEXT = 1000  # characters of a sample's text in a table
_ROLE_PROMPTS = ("query", "document", "passage", "corpus")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStats:
    """Statistics of one column: token counts where `type` is "string", plain values otherwise."""

    type: str
    min: float
    mean: float
    max: float


class DatasetName(NamedTuple):
    """What a card calls a data set; name and revision on the Hugging Face hub, if it is there."""

    title: str
    hub_id: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCard:
    """One data set of the run, to train or to evaluate on.

    size: rows, or what `contents` says.
    columns: names in order: query, positive, negatives; a label column last.
    stats: by column name, taken over the first `stats_rows` rows.
    samples: rows to print, each with one value per column.
    loss: class name of the loss, "MultipleNegativesRanking" say; None where no loss sees it.
    published: the loss as the field knows it, if it does.
    cited: the same of it and of all losses inside it.
    hub_id, revision: name and revision of the data set on the Hugging Face hub, if it comes from there.
    """

    name: str
    size: int
    contents: str = "training samples"
    columns: Sequence[str]
    stats: Mapping[str, ColumnStats] = field(default_factory=dict)
    stats_rows: int = 0
    samples: Sequence[Sequence[str | float]] = ()
    loss: str | None = None
    published: Published | None = None
    cited: Sequence[Published] = ()
    loss_parameters: Mapping[str, Any] = field(default_factory=dict)
    hub_id: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationCard:
    """Result of one evaluator.

    evaluator: class name, "TripletEvaluator" say.
    description: kind of evaluation, "Semantic Similarity" say; gives the task of the model index.
    name: the prefix of its keys; may be empty.
    dataset: what it evaluates on; None for `name`.
    metrics: of the saved model, keys as the evaluator returns them.
    before: of the model before training, the same keys; None where that was not evaluated.
    primary_metric: full key.
    """

    evaluator: str
    description: str
    name: str
    metrics: Mapping[str, float]
    before: Mapping[str, float] | None = None
    primary_metric: str | None = None
    dataset: DatasetName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WidgetExample:
    """A text and three others to compare it with."""

    source_sentence: str
    sentences: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageExample:
    """Texts of the usage code, and the scores that it prints.

    similarities: of each query (row) with each document (column) where `has_roles`; otherwise of
        all texts, queries first, with each other. None prints the shape only.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    similarities: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedModel:
    """A model that was merged.

    name: of a model on the hub, or one that says nothing of this machine.
    share: in the merged weights, 0 where it was left out.
    value: of the metric by which models were measured; None without one.
    """

    name: str
    share: float
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeCard:
    """How a model was merged.

    method: mean, slerp or greedy.
    metric, value: by which models were measured, and that of the merged model; None without one.
    notes: settings that differ between the models.
    """

    method: str
    models: Sequence[MergedModel]
    metric: str | None = None
    value: float | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCard:
    """What training has cost, over all starts of the run.

    device_hours: of all ranks.
    kwh: of their GPUs; None where it was not measured.
    num_texts, num_tokens: that the model has seen; a text counts each time.
    metric, value, before: that chooses the model, and its value after and before training; None where it was
        not evaluated.
    """

    device_hours: float
    kwh: float | None
    num_texts: int
    num_tokens: int
    metric: str | None = None
    value: float | None = None
    before: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardData:
    """Everything that a card says.

    model_name: heading, and the name in the model index.
    base_model: where the weights came from; linked only where it can be a name on the hub.
    base_name: how to call it where it is local files, or where there is no `base_model` that says where
        it is; None takes the end of the path.
    evaluation_sources: what the evaluators evaluate on.
    encoder: what `Encoder.describe` returns.
    hyperparameters, non_default_hyperparameters: nested or flat; secrets are redacted when printed.
    training_log: rows of `metrics.jsonl`.
    best_step: optimizer step of the saved weights, if they were chosen by an evaluation.
    versions: of the frameworks, by name.
    training_time_s: without evaluation, whose seconds are `evaluation_time_s`.
    gradient_caching: whether the loss ran on cached gradients.
    code_version: commit of the user's repository.
    plots: images, paths relative to the card.
    cost: of training; None where it is not known.
    merge: how it was merged, of a model that was not trained itself.
    """

    model_name: str
    encoder: Mapping[str, Any]
    sources: Sequence[SourceCard]
    evaluation_sources: Sequence[SourceCard] = ()
    base_model: str | None = None
    base_name: str | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    non_default_hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    training_log: Sequence[Mapping[str, Any]] = ()
    evaluations: Sequence[EvaluationCard] = ()
    best_step: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    training_time_s: float | None = None
    evaluation_time_s: float | None = None
    hardware: str | None = None
    world_size: int = 1
    strategy: str | None = None
    precision: str | None = None
    global_batch_size: int | None = None
    gradient_caching: bool = False
    language: Sequence[str] = ()
    license: str | None = None
    tags: Sequence[str] = ()
    widget: Sequence[WidgetExample] = ()
    usage: UsageExample | None = None
    code_version: str | None = None
    plots: Sequence[str] = ()
    cost: CostCard | None = None
    merge: MergeCard | None = None


def has_roles(encoder: Mapping[str, Any]) -> bool:
    """True if queries and documents are encoded differently: one of their prompts is not empty."""
    prompts = encoder.get("prompts", {})
    return any(prompts.get(role) for role in _ROLE_PROMPTS)


def column_stats(values: Sequence[float], *, type: str = "string") -> ColumnStats:
    """Statistics of a column from its token counts, or from its values (labels).

    Raises:
        ValueError: there are no values.
    """
    return ColumnStats(type=type, min=min(values), mean=sum(values) / len(values), max=max(values))


def choose_widget(rows: Sequence[Sequence[str]], *, count: int = 5) -> tuple[WidgetExample, ...]:
    """Examples for the card's widget from rows of texts (query, positive, negatives).

    Takes the rows with the shortest texts, a query and a first text once each; every example holds
    its own positive and the positives of the next two, at changing places.
    """
    chosen: list[Sequence[str]] = []
    seen: set[str] = set()
    for row in sorted(rows, key=lambda row: sum(map(len, row[:2]))):
        fresh = all(text.strip() for text in row[:2]) and seen.isdisjoint(row[:2])
        if len(row) >= 2 and fresh:
            chosen.append(row)
            seen.update(row[:2])
    if len(chosen) < 3:
        return ()
    examples = []
    for number, row in enumerate(chosen[:count]):
        others = [chosen[(number + ahead) % len(chosen)][1] for ahead in (1, 2)]
        others.insert(number % 3, row[1])
        examples.append(WidgetExample(source_sentence=row[0], sentences=tuple(others)))
    return tuple(examples)
