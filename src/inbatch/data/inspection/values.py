"""The values that an inspection is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from inbatch.data.report.values import DataReport, FalseNegatives


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of a source are.

    kind: parquet, csv, ... or prepared folder; "" where the origin says it all.
    num_bytes: of all files, compressed as they are; None where they are not on this machine.
    """

    origin: str
    kind: str
    files: tuple[str, ...]
    num_bytes: int | None


@dataclass(frozen=True, slots=True)
class RoleOf:
    """The role of a column, and the rule that gave it."""

    column: str
    role: str  # query, positive, negative, label, key or ignored
    rule: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """Distinct texts that two columns have in common, in any rows."""

    left: str
    right: str
    num_texts: int


@dataclass(frozen=True, slots=True)
class SeenText:
    """A text as the encoder gets it."""

    column: str
    prompt: str
    text: str  # what is left of it, without the prompt
    cut: str  # what is behind max_length tokens


@dataclass(frozen=True, slots=True)
class SeenRow:
    """A row as it will be trained on."""

    number: int
    texts: tuple[SeenText, ...]
    label: float | None


@dataclass(frozen=True, slots=True)
class SamplerFacts:
    """The batches of one source under a sampler, and their known false negatives.

    false_negatives: among all documents that a query is contrasted with.
    """

    sampler: str  # as it is chosen in the configuration
    source: str  # "all" for batches that mix sources
    configured: bool
    problem: str | None  # why the sampler refuses the data, in which case the numbers are 0
    num_steps: int
    num_skipped: int  # rows that no batch of the first epoch holds
    false_negatives: FalseNegatives


@dataclass(frozen=True, slots=True)
class Advice:
    """A setting to think about, and why."""

    about: str  # loss, sampler or batch
    setting: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known of a source beside its part of the data report."""

    name: str
    place: Place
    roles: tuple[RoleOf, ...]
    overlaps: tuple[Overlap, ...]
    scripts: dict[
        str, dict[str, float]
    ]  # by column: share of the letters of sampled rows by Unicode script
    rows: tuple[SeenRow, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """All of it."""

    report: DataReport
    sources: tuple[SourceFacts, ...]
    global_batch_size: int
    samplers: tuple[SamplerFacts, ...]
    masked: tuple[str, ...]  # sources whose loss leaves known positives out of the negatives
    guided: tuple[str, ...]  # sources whose loss has a guide that does so
    encoder: str | None  # whose tokenizer counted tokens
    advice: tuple[Advice, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
