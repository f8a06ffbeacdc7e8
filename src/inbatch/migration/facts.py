"""What a card, a directory, a JSON file or a script tells of a run of sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A class and what it was made with: a module, a loss, an evaluator, a model, a data set."""

    name: str  # without the packages in front
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = {}

    def get(self, key: str, place: int | None = None) -> Any:
        """The argument of a name, or at a place; None where it was not given."""
        if key in self.options:
            return self.options[key]
        return self.args[place] if place is not None and place < len(self.args) else None


class Unknown(NamedTuple):
    """A value that cannot be known without running something."""

    text: str  # as it is written


class Epochs(NamedTuple):
    """A number of steps as epochs: ``0.1 * len(loader)``."""

    number: float


@dataclass(frozen=True)
class DatasetFacts:
    """A set that a run was trained or evaluated on."""

    name: str = ""
    hub: str | None = None
    subset: str | None = None
    split: str | None = None
    revision: str | None = None
    size: int | None = None
    columns: tuple[str, ...] = ()
    loss: Call | None = None


@dataclass(frozen=True)
class EvaluatorFacts:
    """Evaluators of one class, in one table of a card."""

    kind: str
    names: tuple[str, ...] = ("",)
    options: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()


@dataclass
class Facts:
    """All of it; what a source does not tell is None or empty."""

    base_model: str | None = None
    base_revision: str | None = None
    modules: Sequence[Call] = ()
    max_length: int | None = None
    similarity: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    adapter: Mapping[str, Any] | None = None
    arguments: dict[str, Any] = field(
        default_factory=dict
    )  # of SentenceTransformerTrainingArguments
    non_default: frozenset[str] | None = None  # those that a source names as such
    train: Sequence[DatasetFacts] = ()
    eval: Sequence[DatasetFacts] = ()
    evaluators: Sequence[EvaluatorFacts] = ()
    evaluated_at: Sequence[tuple[float, int]] = ()  # (epoch, step) of the log's evaluations
    language: Sequence[str] = ()
    license: str | None = None
    own: Mapping[str, Any] | None = None  # settings of inbatch, where inbatch wrote the source
    notes: list[str] = field(default_factory=list)  # what was seen and cannot be read
