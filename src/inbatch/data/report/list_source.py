"""The part of a data report on a source whose rows have lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np

from inbatch.data.plan.plan import Plan, looked_at
from inbatch.data.ragged import RaggedValues
from inbatch.data.report.false_negatives import (
    cells_of,
    count_false_negatives,
    find_examples,
    summed,
)
from inbatch.data.report.list_counts import ListCounts, Lists, lengths_by_role
from inbatch.data.report.measures import TokenCounter, lengths_of
from inbatch.data.report.values import ColumnReport, ListReport
from inbatch.data.sources.checks import numbers_only
from inbatch.data.sources.list_texts import is_written_as_lists
from inbatch.data.sources.source import Source

_MOST_EXAMPLES = 3
_ROLES = ("query", "positive", "negative")


class RowsWithLists(Protocol):
    """The lists of a source, N rows; a row's texts are its query, positives and negatives, in this order."""

    def hashes(self) -> RaggedValues:
        """64-bit hashes of all texts."""

    def lengths(self) -> RaggedValues:
        """Characters of all texts."""

    def positive_counts(self) -> np.ndarray:
        """Positives of each row, [N]."""

    def read(self, rows: np.ndarray) -> Any:
        """`queries` and flat `documents` of some rows, and `picks` with `counts` and `positives` of each."""


class Row(NamedTuple):
    """The texts of one row."""

    query: str
    positives: list[str]
    negatives: list[str]


def lists_of(rows: RowsWithLists) -> Lists:
    """The hashes of all texts."""
    return Lists(rows.hashes(), rows.positive_counts())


def read_rows(source: RowsWithLists, rows: np.ndarray) -> list[Row]:
    """All texts of some rows."""
    read = source.read(rows)
    documents = iter(read.documents)
    out = []
    for query, count, known in zip(
        read.queries, read.picks.counts.tolist(), read.picks.positives.tolist()
    ):
        of_row = list(islice(documents, count))
        out.append(Row(query, of_row[:known], of_row[known:]))
    return out


def list_columns(
    source: RowsWithLists,
    counts: ListCounts,
    sampled: np.ndarray,
    *,
    names: Sequence[str],
    prompts: Sequence[str],
    tokenizer: TokenCounter | None,
) -> tuple[ColumnReport, ...]:
    """A report for each role that has any text; columns of one role are one.

    Args:
        source: its texts.
        counts: of it.
        sampled: numbers of the rows whose tokens are counted.
        names, prompts: of its columns: query, positive, negatives.
        tokenizer: None leaves tokens out.
    """
    characters = lengths_by_role(Lists(source.lengths(), source.positive_counts()))
    reports = []
    for role, texts in enumerate(texts_by_role(read_rows(source, sampled))):
        lengths = characters[role]
        if lengths is None:
            continue
        tokens, truncated, prompt = None, None, prompts[min(role, len(prompts) - 1)]
        if tokenizer is not None and texts:
            numbers = np.array(tokenizer.count(texts, prompt), dtype=np.int64)
            tokens, truncated = lengths_of(numbers), float((numbers > tokenizer.max_length).mean())
        reports.append(
            ColumnReport(
                name=role_names(names)[role],
                role=_ROLES[role],
                prompt=prompt,
                characters=lengths,
                tokens=tokens,
                truncated_share=truncated,
                num_distinct=counts.num_distinct[role],
                numbers_only=numbers_only(texts),
                lists_as_texts=is_written_as_lists(texts),
            )
        )
    return tuple(reports)


def list_report(
    source: Source,
    counts: ListCounts,
    *,
    plans: Mapping[str, Plan],
    masked: bool,
) -> ListReport:
    """What the lists are like, and their known false negatives in 16 batches of each plan.

    Args:
        source: its rows have lists.
        counts: of it.
        plans: by the name of their sampler, the one in use first; none where the loss compares no rows.
        masked: whether the loss leaves known positives out.
    """
    batches = {name: looked_at(plan, source=source.name) for name, plan in plans.items()}
    found = {
        name: summed([count_false_negatives(cells_of(source, rows), len(rows)) for rows in each])
        for name, each in batches.items()
    }
    first = next(iter(batches.values()), [])
    return ListReport(
        positives=counts.positives,
        negatives=counts.negatives,
        num_without_negatives=counts.num_without_negatives,
        false_negatives=found,
        masked=masked,
        examples=_examples(source, first[0]) if first else (),
    )


def role_names(columns: Sequence[str]) -> list[str]:
    """Names of the texts of each role; the columns of negatives are one."""
    further = ", ".join(columns[2:])
    return [*columns[:2], further] if further else list(columns)


def texts_by_role(rows: Sequence[Row]) -> tuple[list[str], list[str], list[str]]:
    """Queries, positives and negatives of some rows."""
    return (
        [row.query for row in rows],
        [text for row in rows for text in row.positives],
        [text for row in rows for text in row.negatives],
    )


def samples_of(rows: Sequence[Row], columns: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Rows by the names of their roles."""
    return tuple(dict(zip(role_names(columns), row)) for row in rows)


def _examples(source: Source, rows_B: np.ndarray) -> tuple[dict[str, str], ...]:
    """A document, the query of its row, and the query whose known positive it is."""
    cells = cells_of(source, rows_B)
    assert source.ragged is not None
    examples = []
    for row, cell in find_examples(cells, len(rows_B), most=_MOST_EXAMPLES):
        owner = int(cells.row_A[cell])
        place = cell - int(np.argmax(cells.row_A == owner))
        own, other = read_rows(source.ragged, rows_B[[owner, row]])
        texts = [own.query, *own.positives, *own.negatives]
        examples.append(
            {"document": texts[place], "of": own.query, "known positive of": other.query}
        )
    return tuple(examples)
