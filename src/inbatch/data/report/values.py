"""The values that a data report is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from inbatch.data.sources.dropped import Dropped


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
class LabelBin:
    """Rows whose label lies between `low` and `high`, both included where they are equal."""

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
    bins: tuple[LabelBin, ...]


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
class ListBin:
    """Rows whose lists have `low` to `high` texts, both included."""

    low: int
    high: int
    count: int


@dataclass(frozen=True, slots=True)
class ListLengths:
    """Texts of one role that rows have: one bin a number up to ten numbers, then wider ones."""

    min: int
    mean: float
    p50: float
    max: int
    bins: tuple[ListBin, ...]


@dataclass(frozen=True, slots=True)
class FalseNegatives:
    """What an in-batch loss takes for negatives although it is a known positive, under one sampler.

    Known are a row's query and positives. Shares are of the batches that were looked at, of their
    rows and of their negatives.
    """

    sampler: str
    num_batches: int  # looked at
    batch_share: float  # hold a query or positive in two rows
    row_share: float  # rows whose query or a positive is one of another row's
    own_share: float  # negatives equal to the query or a positive of their own row
    other_share: float  # negatives equal to the query or a positive of another row of the batch
    # Row, number of its negative, and the row whose known text that is.
    examples: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ListReport:
    """Lists of a source."""

    positives: ListLengths
    negatives: ListLengths
    num_without_negatives: int
    false_negatives: tuple[FalseNegatives, ...]  # empty where the loss compares no rows
    masked: bool  # the loss leaves known positives out
    examples: tuple[dict[str, str], ...]  # those of the first sampler, as texts


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source."""

    name: str
    origin: str
    read_as: str  # the format and why it was taken; "" for plain columns
    num_rows: int
    num_dropped: int
    dropped: tuple[Dropped, ...]  # the same by reason, and what the format left out
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
