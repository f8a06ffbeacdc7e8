"""The data sets of a run as its card describes them: names, sizes, statistics, samples."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from inbatch.data.report.list_source import read_rows, role_names, texts_by_role
from inbatch.data.sources.load import Source
from inbatch.data.tokenized import tokenize_columns
from inbatch.encoder import Encoder
from inbatch.evaluation.base import EvaluationRows
from inbatch.export.card_data import ColumnStats, DatasetName, SourceCard, column_stats
from inbatch.export.card_header import hub_id
from inbatch.export.model_name import local_name
from inbatch.losses.base import Loss
from inbatch.losses.temperature import learned_temperatures
from inbatch.run.parts import parameters_of

STATS_ROWS = 1000
SAMPLES = 3
UNNAMED = ("train", "eval")  # names of sets that have no name


def dataset_name(name: str, spec: Any, named: Mapping[str, str]) -> DatasetName:
    """What a card calls a data set, and its id on the hub if it has one there.

    Args:
        name: of the source or evaluation set.
        spec: its keys in the configuration, or the bare path of its files.
        named: names from the configuration's ``card.datasets``; with an owner (``owner/name``) they are ids.
    """
    keys = spec if isinstance(spec, Mapping) else {"path": spec}
    on_hub, path = keys.get("hub"), keys.get("path")
    if name in named:
        known = named[name]
        return DatasetName(known, hub_id(known) if "/" in known else on_hub, keys.get("revision"))
    if name in UNNAMED:
        name = str(on_hub) if on_hub else _file_name(path) or name
    return DatasetName(name, on_hub, keys.get("revision"))


def source_card(
    source: Source,
    encoder: Encoder,
    loss: Loss,
    *,
    guide: str | None,
    name: DatasetName,
    learned: Mapping[str, Tensor],
) -> SourceCard:
    """A training source; `learned` is what its loss has trained."""
    num_rows = min(STATS_ROWS, source.num_rows)
    labels = source.labels(np.arange(num_rows))
    samples: list[tuple[str | float, ...]]
    stats, samples = (_list_stats if source.is_ragged else _column_stats)(source, encoder, num_rows)
    names = list(stats)
    if labels is not None:
        names.append(source.roles.label or "label")
        stats[names[-1]] = column_stats([float(v) for v in labels], type="float")
        samples = [(*row, float(v)) for row, v in zip(samples, labels)]
    learned_values = {name: round(t, 5) for name, t in learned_temperatures(learned).items()}
    named_guide = {"guide": local_name(str(guide))} if loss.needs_guide else {}
    return SourceCard(
        name=name.title,
        size=source.num_rows,
        columns=names,
        stats=stats,
        stats_rows=num_rows,
        samples=samples,
        loss=type(loss).__name__,
        published=loss.published,
        cited=[part.published for part in loss.nested() if part.published is not None],
        loss_parameters={**named_guide, **parameters_of(loss), **learned_values},
        hub_id=name.hub_id,
        revision=name.revision,
    )


def _column_stats(
    source: Source, encoder: Encoder, num_rows: int
) -> tuple[dict[str, ColumnStats], list[tuple[str | float, ...]]]:
    """Statistics by column, and samples."""
    columns, _ = source.read(np.arange(num_rows))
    prompts = source.column_prompts(encoder.role_prompts)
    token_ids, _ = tokenize_columns(columns, prompts, tokenizer=encoder.tokenizer)
    stats = {
        column: column_stats(
            [len(ids) for ids in token_ids[number * num_rows : (number + 1) * num_rows]]
        )
        for number, column in enumerate(source.columns)
    }
    return stats, [tuple(row) for row in zip(*columns)][:SAMPLES]


def _list_stats(
    source: Source, encoder: Encoder, num_rows: int
) -> tuple[dict[str, ColumnStats], list[tuple[str | float, ...]]]:
    """The same of rows with lists: statistics of the texts in them, and samples with whole lists."""
    assert source.ragged is not None
    rows = read_rows(source.ragged, np.arange(num_rows))
    prompts = source.column_prompts(encoder.role_prompts)
    stats = {
        name: column_stats([len(ids) for ids in encoder.tokenizer(texts, prompt)[0]])
        for name, texts, prompt in zip(role_names(source.columns), texts_by_role(rows), prompts)
        if texts
    }
    samples = [(row.query, str(row.positives), str(row.negatives)) for row in rows[:SAMPLES]]
    return stats, [sample[: len(stats)] for sample in samples]


def evaluation_source_card(
    rows: EvaluationRows, encoder: Encoder, *, name: DatasetName
) -> SourceCard:
    """The rows that an evaluator evaluates on."""
    stats = {
        column: _stats(values[:STATS_ROWS], encoder) for column, values in rows.columns.items()
    }
    return SourceCard(
        name=name.title,
        size=rows.size,
        contents=rows.contents,
        columns=list(rows.columns),
        stats=stats,
        stats_rows=min(STATS_ROWS, *map(len, rows.columns.values())),
        samples=list(zip(*(values[:SAMPLES] for values in rows.columns.values()))),
        hub_id=name.hub_id,
        revision=name.revision,
    )


def _stats(values: Sequence[str] | Sequence[float], encoder: Encoder) -> ColumnStats:
    texts = [value for value in values if isinstance(value, str)]
    if not texts:
        return column_stats([float(value) for value in values], type="float")
    token_ids, _ = encoder.tokenizer(texts, "")
    return column_stats([len(ids) for ids in token_ids])


def _file_name(path: Any) -> str | None:
    """The name of the file or folder that holds a set; None where there is no single one."""
    if not isinstance(path, str):
        return None
    place = Path(path).expanduser()
    if glob.has_magic(place.name):
        place = place.parent
    elif not place.exists():
        return None
    name = place.name if place.is_dir() else place.name.split(".")[0]
    return None if glob.has_magic(name) else name or None
