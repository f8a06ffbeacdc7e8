"""Examines the training data before a step is spent on it.

Shape letters: C text columns, N rows.

Counts of duplicates and characters cover all rows (64-bit hashes and Arrow lengths, no strings);
token counts come from a random sample. The result is a tree of frozen values (values.py) that text.py
puts in words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inbatch.data.plan.plan import Plan
from inbatch.data.report import text as report_text
from inbatch.data.report.column_counts import ColumnCounts, count_columns, num_distinct
from inbatch.data.report.list_counts import ListCounts, count_lists
from inbatch.data.report.list_source import (
    list_columns,
    list_report,
    lists_of,
    read_rows,
    samples_of,
)
from inbatch.data.report.measures import TokenCounter, lengths_of, sample
from inbatch.data.report.subsample import one_in, subsample
from inbatch.data.report.unused import unused_columns
from inbatch.data.report.values import (
    Bin,
    ColumnReport,
    DataReport,
    KeyReport,
    LabelReport,
    ScoreReport,
    SourceReport,
)
from inbatch.data.sources.checks import numbers_only
from inbatch.data.sources.list_texts import is_written_as_lists
from inbatch.data.sources.load import Source
from inbatch.files import write_text
from inbatch.losses.base import Loss


def build_report(
    sources: Sequence[Source],
    *,
    tokenizer: TokenCounter | None = None,
    prompts: Mapping[str, str] | None = None,
    in_batch: Collection[str] | None = None,
    guided: Collection[str] = (),
    masked: Collection[str] = (),
    losses: Mapping[str, Loss] | None = None,
    duplicate_share: Callable[[Source], float] | None = None,
    plans: Mapping[str, Plan] | None = None,
    skipped: Mapping[str, int] | None = None,
    sample_rows: int = 1000,
) -> DataReport:
    """Look at every source.

    Args:
        sources: From `load_sources`.
        tokenizer: The encoder's, for token counts; None leaves them out.
        prompts: As given to the collator.
        in_batch: Names of the sources whose loss takes other rows of a batch for negatives, so that a
            text that occurs twice there is a false negative; None for all.
        guided: Names of the sources whose false negatives a guide leaves out.
        masked: Names of the sources whose loss leaves out known positives.
        losses: By source name, for what they use of scores, and warnings about other columns that they do
            not use; None leaves both out.
        duplicate_share: Share of global batches that would hold a text twice under the sampler and
            batch size in use; None leaves it out.
        plans: In whose batches false negatives among lists are counted, by the name of their sampler, the
            one in use first; None leaves them out.
        skipped: Rows skipped in the first epoch, by source name (`Plan.skipped`); a name that is not a
            source stands for all sources.
        sample_rows: Rows of each source to tokenize.
    """
    skipped = skipped or {}
    reports = tuple(
        _source_report(
            source,
            tokenizer=tokenizer,
            prompts=prompts,
            in_batch=in_batch is None or source.name in in_batch,
            duplicate_share=duplicate_share,
            plans=plans or {},
            masked=source.name in masked,
            num_skipped=skipped.get(source.name, 0),
            sample_rows=sample_rows,
            loss=None if losses is None else losses[source.name],
        )
        for source in sources
    )
    max_length = None if tokenizer is None else tokenizer.max_length
    warnings = [
        line
        for report in reports
        for line in report_text.warnings_of(
            report, max_length, guided=report.name in {*guided, *masked}
        )
    ]
    for source, report in zip(sources, reports):
        if losses is not None:
            warnings += _unused(source, report, losses[source.name])
    names, num_rows = {source.name for source in sources}, sum(s.num_rows for s in sources)
    for name in sorted(skipped.keys() - names):
        warnings += report_text.skipped_warnings(f"sources '{name}'", skipped[name], num_rows)
    return DataReport(reports, max_length, tuple(warnings))


def write(report: DataReport, path: Path) -> None:
    """Write the report for readers to `path`, and beside it, as ``.json``, the one for programs."""
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False)
    write_text(path.with_suffix(".json"), text + "\n")
    write_text(path, report_text.to_markdown(report))


def _unused(source: Source, report: SourceReport, loss: Loss) -> list[str]:
    label = report.label
    return unused_columns(
        source.roles,
        loss,
        source=source.name,
        field=source.field,
        labels_vary=label is not None and label.min != label.max,
    )


def _source_report(
    source: Source,
    *,
    tokenizer: TokenCounter | None,
    prompts: Mapping[str, str] | None,
    in_batch: bool,
    duplicate_share: Callable[[Source], float] | None,
    plans: Mapping[str, Plan],
    masked: bool,
    num_skipped: int,
    sample_rows: int,
    loss: Loss | None,
) -> SourceReport:
    sampled = sample(source.num_near_rows, sample_rows)
    contrasted = in_batch and not source.has_labels
    counts: ColumnCounts | ListCounts
    lists, ragged = None, source.ragged
    if ragged is not None:
        counts = count_lists(lists_of(ragged))
        plans = plans if contrasted else {}
        lists = list_report(source, counts, plans=plans, masked=masked)
        columns = list_columns(
            ragged,
            counts,
            sampled,
            names=source.columns,
            prompts=source.column_prompts(prompts),
            tokenizer=tokenizer,
        )
    else:
        counts = count_columns(source.text_hashes())
        columns = _column_reports(source, sampled, tokenizer=tokenizer, prompts=prompts)
    share = duplicate_share(source) if in_batch and duplicate_share else None
    return SourceReport(
        name=source.name,
        origin=source.origin,
        read_as=source.read_as,
        num_rows=source.num_rows,
        intake=source.intake,
        dropped=source.dropped,
        columns=columns,
        ignored_columns=source.roles.ignored,
        label=_label_report(source),
        key=_key_report(source),
        num_duplicate_rows=counts.num_duplicate_rows,
        num_positive_is_query=counts.num_positive_is_query,
        num_negative_is_own=counts.num_negative_is_own,
        shared_queries=counts.shared_queries if contrasted else None,
        shared_positives=counts.shared_positives if contrasted else None,
        batches_with_duplicates=share,
        num_skipped=num_skipped,
        num_sampled=0 if tokenizer is None else len(sampled),
        samples=_samples(source),
        counted_one_in=counts.counted_one_in,
        lists=lists,
        scores=_score_report(source, loss),
    )


def _column_reports(
    source: Source,
    sampled: np.ndarray,
    *,
    tokenizer: TokenCounter | None,
    prompts: Mapping[str, str] | None,
) -> tuple[ColumnReport, ...]:
    of_column = source.column_prompts(prompts)
    hashes_CN, characters_CN = source.text_hashes(), source.text_lengths()
    texts, _ = source.read(sampled)
    reports = []
    for column, name in enumerate(source.columns):
        tokens, truncated = None, None
        if tokenizer is not None:
            counts = np.array(tokenizer.count(texts[column], of_column[column]), dtype=np.int64)
            tokens, truncated = lengths_of(counts), float((counts > tokenizer.max_length).mean())
        reports.append(
            ColumnReport(
                name=name,
                role=source.roles.role(column),
                prompt=of_column[column],
                characters=lengths_of(characters_CN[column]),
                tokens=tokens,
                truncated_share=truncated,
                num_distinct=num_distinct(hashes_CN[column]),
                numbers_only=numbers_only(texts[column]),
                lists_as_texts=is_written_as_lists(texts[column]),
            )
        )
    return tuple(reports)


def _label_report(source: Source) -> LabelReport | None:
    labels = source.labels()
    if labels is None or source.roles.label is None:
        return None
    values, counts = np.unique(labels, return_counts=True)
    if len(values) <= 10:
        bins = [Bin(float(v), float(v), int(n)) for v, n in zip(values, counts)]
    else:
        in_bin, edges = np.histogram(labels, bins=10)
        bounds = zip(edges.tolist(), edges.tolist()[1:], in_bin.tolist())
        bins = [Bin(low, high, count) for low, high, count in bounds]
    mean = float(labels.mean(dtype=np.float64))
    low, high = float(values[0]), float(values[-1])
    return LabelReport(source.roles.label, low, mean, high, len(values), tuple(bins))


def _score_report(source: Source, loss: Loss | None) -> ScoreReport | None:
    if not source.roles.scores:
        return None
    used = None if loss is None else loss.needs_scores
    return ScoreReport(source.roles.scores, source.num_without_scores(), used)


def _key_report(source: Source) -> KeyReport | None:
    keys_N = source.keys()
    if keys_N is None or source.roles.key is None:
        return None
    factor = one_in(len(keys_N))
    _, keys_N = subsample(keys_N.__getitem__, len(keys_N), keep_one_in=factor)
    counts = np.unique(keys_N, return_counts=True)[1]
    sharing = int(counts[counts > 1].sum())
    most = int(counts.max(initial=0))
    return KeyReport(source.roles.key, len(counts) * factor, sharing * factor, most)


def _samples(source: Source) -> tuple[dict[str, Any], ...]:
    """The first, the middle and the last row."""
    rows = np.unique(np.linspace(0, source.num_near_rows - 1, 3).astype(np.int64))
    if source.ragged is not None:
        return samples_of(read_rows(source.ragged, rows), source.columns)
    texts, labels = source.read(rows)
    samples: list[dict[str, Any]] = [dict(zip(source.columns, row)) for row in zip(*texts)]
    if labels is not None and source.roles.label is not None:
        for sample, label in zip(samples, labels.tolist()):
            sample[source.roles.label] = round(label, 6)
    return tuple(samples)
