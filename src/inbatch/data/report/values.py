"""The values that a data report is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from inbatch.data.sources.dropped import Dropped, Intake


@dataclass(frozen=True, slots=True)
class Lengths:
    """Distribution of lengths, in characters or tokens."""

    min: int
    mean: float
    p50: float
    p95: float
    max: int


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One text column."""

    name: str
    role: str  # query, positive or negative
    prompt: str
    characters: Lengths  # all rows, without the prompt
    tokens: Lengths | None  # sampled rows, with prompt and special tokens, before truncation
    truncated_share: float | None  # sampled rows above max_length
    num_distinct: int
    numbers_only: bool  # sampled rows: every text that is not empty reads as a number
    lists_as_texts: bool  # sampled rows: half of the texts or more read as lists


@dataclass(frozen=True, slots=True)
class Shared:
    """Texts of one column that occur with several different texts of another.

    In one batch such rows are false negatives of each other.
    """

    num_rows: int
    num_texts: int
    row_share: float
    text_share: float  # of the distinct texts


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose label, or number of texts, lies between `low` and `high`.

    Both are included, of labels only where they are equal.
    """

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class LabelReport:
    """Distribution of the labels: one bin a value up to ten values, else ten equal bins."""

    name: str
    min: float
    mean: float
    max: float
    num_distinct: int
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class KeyReport:
    """Keys of rows: rows with one key never meet in a batch without duplicates."""

    name: str
    num_distinct: int
    num_sharing_rows: int  # rows whose key other rows have too
    most_rows: int  # of one key


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """Scores of a teacher."""

    columns: tuple[str, ...]
    num_without: int  # rows of which some document has none
    used: bool | None  # by the loss; None where it is not known


@dataclass(frozen=True, slots=True)
class ListLengths:
    """Texts of one role that rows have: one bin a number up to ten numbers, then wider ones."""

    min: int
    mean: float
    p50: float
    max: int
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class FalseNegatives:
    """Documents that a query is contrasted with although they are its known positives, under one sampler.

    Shares are of the batches that were looked at, of rows looked at in them, and of their negatives.
    """

    num_batches: int  # looked at
    batch_share: float  # batches with a known false negative
    row_share: float  # rows that have one among their negatives
    negative_share: float  # negatives that are known positives of their query


@dataclass(frozen=True, slots=True)
class ListReport:
    """Lists of a source."""

    positives: ListLengths
    negatives: ListLengths
    num_without_negatives: int
    # By sampler, the one in use first; empty where the loss compares no rows.
    false_negatives: dict[str, FalseNegatives]
    masked: bool  # the loss leaves known positives out
    examples: tuple[dict[str, str], ...]  # of the first batch under the first sampler


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source."""

    name: str
    origin: str
    read_as: str  # the format and why it was taken; "" for plain columns
    num_rows: int
    intake: Intake
    dropped: tuple[Dropped, ...]  # what the intake did not use, by reason, and texts of rows
    columns: tuple[ColumnReport, ...]
    ignored_columns: tuple[str, ...]
    label: LabelReport | None
    key: KeyReport | None
    num_duplicate_rows: int  # rows whose texts all occur in an earlier row
    num_positive_is_query: int
    num_negative_is_own: int  # rows in which a negative equals the query or the positive
    # None where labels say which pairs are positive; with lists, texts that several rows have.
    shared_queries: Shared | None
    shared_positives: Shared | None
    batches_with_duplicates: float | None  # share, under the sampler in use
    num_skipped: int  # rows skipped in the first epoch
    num_sampled: int
    samples: tuple[dict[str, Any], ...]
    counted_one_in: int  # k: repeated texts, keys and rows were counted on one text in k, times k
    lists: ListReport | None = None  # of rows with lists
    scores: ScoreReport | None = None  # where documents have scores


@dataclass(frozen=True, slots=True)
class DataReport:
    """All sources, and what a person should know about them."""

    sources: tuple[SourceReport, ...]
    max_length: int | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
