"""The parts of a card that take more than a template: tables and lists.

Pure functions from `CardData` to Markdown. Everything that comes from data or configuration passes
through `markdown` (it may hold pipes, HTML, code fences) and `redaction` on its way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from inbatch.export import markdown as md
from inbatch.export.card_data import (
    MAX_SHOWN_TEXT,
    CardData,
    ColumnStats,
    CostCard,
    DatasetName,
    EvaluationCard,
    MergeCard,
    SourceCard,
)
from inbatch.export.citations import loss_name, loss_page
from inbatch.export.metrics_log import by_step, is_finite
from inbatch.export.redaction import flatten, redact

MAX_LOG_ROWS = 200
FOLD_LOG_ROWS = 100
_MAX_VALUE = 300  # characters of a hyperparameter
_EVALUATOR_PAGE = (
    "https://sbert.net/docs/package_reference/sentence_transformer/evaluation.html"
    "#sentence_transformers.sentence_transformer.evaluation."
)
_DOCUMENTED = {
    "BinaryClassificationEvaluator",
    "EmbeddingSimilarityEvaluator",
    "InformationRetrievalEvaluator",
    "TripletEvaluator",
}


_METHODS = {
    "mean": "Each weight is the mean of those of the models, by their shares.",
    "slerp": "Each tensor lies on the arc between those of the two models (spherical linear interpolation).",
    "greedy": "A greedy soup: of the models, from the best on, each was added to the mean of those before "
    "it where the metric did not fall.",
}


class EvaluationBlock(NamedTuple):
    """Evaluators of one kind and one set of metrics, in one table."""

    description: str
    datasets: str
    evaluator: str
    table: str


class MergeBlock(NamedTuple):
    """How a model was merged."""

    method: str
    table: str
    notes: list[str]


class LogTable(NamedTuple):
    """The training log; `note` says what the reader cannot see."""

    table: str
    folded: bool
    note: str


def evaluation_blocks(evaluations: Sequence[EvaluationCard]) -> list[EvaluationBlock]:
    """One table for each kind of evaluator; those that differ only in their data share it."""

    def kind(card: EvaluationCard) -> tuple[str, ...]:
        return card.description, card.evaluator, *map(str, short_metrics(card))

    groups: dict[tuple[str, ...], list[EvaluationCard]] = {}
    for card in evaluations:
        groups.setdefault(kind(card), []).append(card)
    return [_evaluation_block(group) for group in groups.values()]


def short_metrics(
    card: EvaluationCard, metrics: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Metrics of an evaluator without the prefix of their keys."""
    metrics = card.metrics if metrics is None else metrics
    return {_short(card, key): value for key, value in metrics.items()}


def dataset_link(dataset: DatasetName) -> str:
    """The name of a data set, with a link to the hub where it is there."""
    name = md.inline(dataset.title) or "Unnamed Dataset"
    if not dataset.hub_id:
        return name
    page = f"https://huggingface.co/datasets/{quote(dataset.hub_id)}"
    at = dataset.revision
    return f"[{name}]({page})" + (f" at [{at[:7]}]({page}/tree/{at})" if at else "")


def loss_text(source: SourceCard, *, cached: bool) -> str:
    """The loss of a source, with a link where it is documented, and its parameters as JSON."""
    name = loss_name(source.loss or "", source.published, cached=cached)
    page = loss_page(source.published, cached=cached)
    return _linked(name, page) + _parameters(source.loss_parameters)


def stats_table(source: SourceCard) -> str:
    """Type, smallest, mean and largest of each column."""
    header = ["", *(md.code_cell(name) for name in source.columns)]
    stats = [source.stats.get(name) for name in source.columns]
    types = ["type", *(s.type if s else "-" for s in stats)]
    details = ["details", *(_stats_cell(s) if s else "-" for s in stats)]
    return md.table(header, [types, details], indent="  ")


def samples_table(source: SourceCard) -> str:
    """The sample rows, long texts shortened."""
    header = [md.code_cell(name) for name in source.columns]
    rows = [
        [md.code_cell(md.shorten(str(value), MAX_SHOWN_TEXT)) for value in row]
        for row in source.samples
    ]
    return md.table(header, rows, indent="  ")


def settings_list(values: Mapping[str, Any]) -> str:
    """One line for each setting, nested ones with dotted names, without secrets; quotes show outer spaces."""
    lines = []
    for name, value in flatten(redact(values)).items():
        seen = repr(value) if isinstance(value, str) and value != value.strip() else str(value)
        shown = md.shorten(seen, _MAX_VALUE)
        lines.append(f"- {md.code_span(name)}: {md.inline(shown)}".rstrip())
    return "\n".join(lines)


def log_table(card: CardData) -> LogTable | None:
    """Losses and primary metrics by step, the row of the saved weights bold; None without any."""
    columns = {"train/loss": "Training Loss", "eval/loss": "Validation Loss"}
    for evaluation in card.evaluations:
        if evaluation.primary_metric:
            columns[f"eval/{evaluation.primary_metric}"] = md.inline(evaluation.primary_metric)
    rows = [
        row for row in by_step(card.training_log) if any(is_finite(row.get(k)) for k in columns)
    ]
    columns = {key: name for key, name in columns.items() if any(key in row for row in rows)}
    if not rows:
        return None
    evaluated = [any(key.startswith("eval/") for key in row) for row in rows]
    best = [position for position, row in enumerate(rows) if row["step"] == card.best_step]
    shown = [rows[position] for position in _thinned(evaluated, best)]
    cells = [_log_cells(row, list(columns), bold=row["step"] == card.best_step) for row in shown]
    notes = ["* The bold row denotes the saved checkpoint."] if best else []
    if len(shown) < len(rows):
        notes.append(f"* {len(shown)} of {len(rows):,} logged steps are shown.")
    table = md.table(["Epoch", "Step", *columns.values()], cells, align=":-:")
    return LogTable(table, len(shown) > FOLD_LOG_ROWS, "\n".join(notes))


def cost_list(cost: CostCard) -> list[tuple[str, str]]:
    """What training has cost by name, in words."""
    energy = "not measured" if cost.kwh is None else f"{cost.kwh:.3f} kWh (of the GPUs)"
    rows = [
        ("Energy Consumed", energy),
        ("Device-Hours", f"{cost.device_hours:.3g}"),
        ("Texts Seen", f"{cost.num_texts:,}"),
        ("Tokens Seen", f"{cost.num_tokens:,}"),
    ]
    if cost.metric is not None and is_finite(cost.value) and cost.device_hours > 0:
        value = cost.value or 0.0
        each = f"{value / cost.device_hours:.3g}"
        if is_finite(cost.before):
            each += f" (gained: {(value - (cost.before or 0.0)) / cost.device_hours:.3g})"
        rows.append((f"{md.inline(cost.metric)} per Device-Hour", each))
    return rows


def merge_block(merge: MergeCard) -> MergeBlock:
    """The method in words, and a table of the models with their shares and the metric."""
    metric = [] if merge.metric is None else [md.inline(merge.metric)]
    rows = [
        [md.inline(m.name), f"{m.share:.4g}" if m.share else "left out", *_cell(metric, m.value)]
        for m in merge.models
    ]
    if metric:
        rows.append(["**the merged model**", "", *_cell(metric, merge.value)])
    table = md.table(["Model", "Share", *metric], rows)
    return MergeBlock(_METHODS[merge.method], table, [md.inline(note) for note in merge.notes])


def _cell(metric: list[str], value: float | None) -> list[str]:
    return [md.number(value)] if metric else []


def in_words(seconds: float) -> str:
    """Seconds in the largest unit that is not below one."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _evaluation_block(cards: list[EvaluationCard]) -> EvaluationBlock:
    first = cards[0]
    if len(cards) == 1:
        header, columns = _single_columns(first)
    else:
        header = [md.code_span(card.name) for card in cards]
        columns = [_merged_column(card) for card in cards]
    primary = _short(first, first.primary_metric or "")
    rows = []
    for metric in short_metrics(first):
        cells = [md.inline(metric), *(column[metric] for column in columns)]
        rows.append([f"**{cell}**" for cell in cells] if metric == primary else cells)
    page = f"{_EVALUATOR_PAGE}{first.evaluator}"
    names = [_evaluated_on(card) for card in cards if card.name or card.dataset]
    return EvaluationBlock(
        description=md.inline(first.description),
        datasets=f"Dataset{'s' * (len(names) > 1)}: {md.join(names)}" if names else "",
        evaluator=_linked(first.evaluator, page if first.evaluator in _DOCUMENTED else None),
        table=md.table(["Metric", *header], rows),
    )


def _evaluated_on(card: EvaluationCard) -> str:
    dataset = card.dataset or DatasetName(card.name)
    return dataset_link(dataset) if dataset.hub_id else md.code_span(dataset.title)


def _single_columns(card: EvaluationCard) -> tuple[list[str], list[dict[str, str]]]:
    after = {key: md.number(value) for key, value in short_metrics(card).items()}
    if card.before is None:
        return ["Value"], [after]
    short = {_short(card, key): value for key, value in card.before.items()}
    before = {key: md.number(short.get(key)) for key in after}
    return ["Before training", "After training"], [before, after]


def _merged_column(card: EvaluationCard) -> dict[str, str]:
    _, columns = _single_columns(card)
    return {key: " → ".join(column[key] for column in columns) for key in columns[0]}


def _short(card: EvaluationCard, key: str) -> str:
    return key.removeprefix(f"{card.name}_") if card.name else key


def _stats_cell(stats: ColumnStats) -> str:
    unit = " tokens" if stats.type == "string" else ""
    values = {"min": stats.min, "mean": round(stats.mean, 2), "max": stats.max}
    return (
        f"<ul>{''.join(f'<li>{name}: {value}{unit}</li>' for name, value in values.items())}</ul>"
    )


def _linked(name: str, page: str | None) -> str:
    code = f"<code>{md.inline(name)}</code>"
    return f"[{code}]({page})" if page else code


def _parameters(values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    text = json.dumps(redact(values), indent=4, default=str, ensure_ascii=False)
    return f" with these parameters:\n{md.fenced(text, 'json', indent='  ')}"


def _log_cells(row: Mapping[str, Any], keys: Sequence[str], *, bold: bool) -> list[str]:
    epoch = f"{row['epoch']:.4f}" if is_finite(row.get("epoch")) else "-"
    values = [md.number(row[key]) if is_finite(row.get(key)) else "-" for key in keys]
    cells = [epoch, str(row["step"]), *values]
    return [f"**{cell}**" for cell in cells] if bold else cells


def _thinned(evaluated: Sequence[bool], best: Sequence[int]) -> list[int]:
    """Positions of at most `MAX_LOG_ROWS` rows: ends and best, then evaluations, then the rest."""
    count = len(evaluated)
    if count <= MAX_LOG_ROWS:
        return list(range(count))
    kept = {0, count - 1, *best}
    wanted = [position for position in range(count) if evaluated[position]]
    for positions, limit in ((wanted, MAX_LOG_ROWS // 2), (list(range(count)), MAX_LOG_ROWS)):
        positions = [position for position in positions if position not in kept]
        room = min(limit - len(kept), len(positions))
        kept.update(positions[number * len(positions) // room] for number in range(room))
    return sorted(kept)
