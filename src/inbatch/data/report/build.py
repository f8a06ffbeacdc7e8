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
from typing import Any, Protocol

import numpy as np

from inbatch.data.hashing import hash_rows
from inbatch.data.report import text as report_text
from inbatch.data.report.subsample import one_in, subsample
from inbatch.data.report.unused import unused_columns
from inbatch.data.report.values import (
    ColumnReport,
    DataReport,
    KeyReport,
    LabelBin,
    LabelReport,
    Lengths,
    Shared,
    SourceReport,
)
from inbatch.data.sources.checks import numbers_only
from inbatch.data.sources.list_texts import is_written_as_lists
from inbatch.data.sources.load import Source
from inbatch.files import write_text
from inbatch.losses.base import Loss


class TokenCounter(Protocol):
    """Counts the tokens of texts, as `encoder.TextTokenizer` does."""

    @property
    def max_length(self) -> int:
        """Most tokens that a text keeps."""

    def count(self, texts: Sequence[str], prompt: str = "") -> list[int]:
        """Tokens of each text behind a prompt, special tokens included, before truncation."""


def build_report(
    sources: Sequence[Source],
    *,
    tokenizer: TokenCounter | None = None,
    prompts: Mapping[str, str] | None = None,
    in_batch: Collection[str] | None = None,
    guided: Collection[str] = (),
    losses: Mapping[str, Loss] | None = None,
    duplicate_share: Callable[[Source], float] | None = None,
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
        losses: By source name, for warnings about columns that they do not use; None leaves those out.
        duplicate_share: Share of global batches that would hold a text twice under the sampler and
            batch size in use; None leaves it out.
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
            num_skipped=skipped.get(source.name, 0),
            sample_rows=sample_rows,
        )
        for source in sources
    )
    max_length = None if tokenizer is None else tokenizer.max_length
    warnings = [
        line
        for report in reports
        for line in report_text.warnings_of(report, max_length, guided=report.name in guided)
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


def shared(left_N: np.ndarray, right_N: np.ndarray) -> Shared:
    """Texts of `left` (hashes) that occur with several distinct texts of `right`.

    Of many rows, counts are estimates (subsample.py).
    """
    factor = one_in(len(left_N))
    rows, left_N = subsample(left_N.__getitem__, len(left_N), keep_one_in=factor)
    right_N = right_N[rows]
    order = np.lexsort((right_N, left_N))
    left_N, right_N = left_N[order], right_N[order]
    new_left = np.append(True, left_N[1:] != left_N[:-1])
    new_pair = new_left | np.append(True, right_N[1:] != right_N[:-1])
    group_N = np.cumsum(new_left) - 1
    several = np.bincount(group_N, weights=new_pair) >= 2
    num_rows = int(np.bincount(group_N)[several].sum())
    num_texts = int(several.sum())
    return Shared(
        num_rows * factor,
        num_texts * factor,
        num_rows / max(len(left_N), 1),
        num_texts / max(len(several), 1),
    )


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
    num_skipped: int,
    sample_rows: int,
) -> SourceReport:
    hashes_CN = source.text_hashes()
    query_N, positive_N, negatives = hashes_CN[0], hashes_CN[1], hashes_CN[2:]
    equal_N = np.zeros(source.num_rows, dtype=bool)
    for negative_N in negatives:
        equal_N |= (negative_N == query_N) | (negative_N == positive_N)
    sampled = _sample(source.num_near_rows, sample_rows)
    contrasted = in_batch and not source.has_labels
    return SourceReport(
        name=source.name,
        origin=source.origin,
        read_as=source.read_as,
        num_rows=source.num_rows,
        num_dropped=source.num_dropped,
        dropped=source.dropped,
        columns=_column_reports(source, sampled, tokenizer=tokenizer, prompts=prompts),
        ignored_columns=source.roles.ignored,
        label=_label_report(source),
        key=_key_report(source),
        num_duplicate_rows=_num_repeats(hashes_CN),
        num_positive_is_query=int((query_N == positive_N).sum()),
        num_negative_is_own=int(equal_N.sum()),
        shared_queries=shared(query_N, positive_N) if contrasted else None,
        shared_positives=shared(positive_N, query_N) if contrasted else None,
        batches_with_duplicates=duplicate_share(source) if in_batch and duplicate_share else None,
        num_skipped=num_skipped,
        num_sampled=0 if tokenizer is None else len(sampled),
        samples=_samples(source),
        counted_one_in=one_in(source.num_rows),
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
            tokens, truncated = _lengths(counts), float((counts > tokenizer.max_length).mean())
        reports.append(
            ColumnReport(
                name=name,
                role=source.roles.role(column),
                prompt=of_column[column],
                characters=_lengths(characters_CN[column]),
                tokens=tokens,
                truncated_share=truncated,
                num_distinct=_num_distinct(hashes_CN[column]),
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
        bins = [LabelBin(float(v), float(v), int(n)) for v, n in zip(values, counts)]
    else:
        in_bin, edges = np.histogram(labels, bins=10)
        bounds = zip(edges.tolist(), edges.tolist()[1:], in_bin.tolist())
        bins = [LabelBin(low, high, count) for low, high, count in bounds]
    mean = float(labels.mean(dtype=np.float64))
    low, high = float(values[0]), float(values[-1])
    return LabelReport(source.roles.label, low, mean, high, len(values), tuple(bins))


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
    texts, labels = source.read(rows)
    samples: list[dict[str, Any]] = [dict(zip(source.columns, row)) for row in zip(*texts)]
    if labels is not None and source.roles.label is not None:
        for sample, label in zip(samples, labels.tolist()):
            sample[source.roles.label] = round(label, 6)
    return tuple(samples)


def _sample(num_rows: int, count: int) -> np.ndarray:
    """Distinct rows in rising order, the same on every call."""
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(num_rows, size=min(count, num_rows), replace=False, shuffle=False))


def _num_distinct(hashes_N: np.ndarray) -> int:
    factor = one_in(len(hashes_N))
    ordered = np.sort(subsample(hashes_N.__getitem__, len(hashes_N), keep_one_in=factor)[1])
    return factor * (int((ordered[1:] != ordered[:-1]).sum()) + bool(len(ordered)))


def _num_repeats(hashes_CN: np.ndarray) -> int:
    """Rows all texts of which stand in an earlier row."""
    num_rows = hashes_CN.shape[1]
    factor = one_in(num_rows)
    _, rows = subsample(lambda block: hash_rows(hashes_CN[:, block]), num_rows, keep_one_in=factor)
    return factor * (len(rows) - len(np.unique(rows)))


def _lengths(values: np.ndarray) -> Lengths:
    p50, p95 = np.percentile(values, [50, 95]).tolist()
    mean = float(values.mean(dtype=np.float64))
    return Lengths(int(values.min()), round(mean, 2), p50, p95, int(values.max()))
